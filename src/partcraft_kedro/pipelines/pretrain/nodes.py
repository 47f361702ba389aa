"""Making tiny: draw pictures, then train VAE, observers, base, and put them together."""

from pathlib import Path

from partcraft_kedro.options import BaseModelOptions, PretrainOptions
from partcraft_kedro.stages import Stage, Stages

PRETRAINING = Stage("pretraining", "06_models", version=4, work="partcraft_kedro.pipelines.pretrain.work.pretraining")


def train_tiny(pretrain: PretrainOptions, base: BaseModelOptions, stages: Stages) -> Path:
    """Train the networks of tiny, or go on, or find it done; returns the folder of the finished model."""
    seen = {"pretrain": pretrain, "base": base.only("device", "precision")}
    return stages.run(PRETRAINING, seen).folder / "tiny"
