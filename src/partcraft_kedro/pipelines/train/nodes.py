"""Training: pictures, prompts and masks to an adapter."""

from functools import partial
from pathlib import Path

import pandas as pd

from partcraft_kedro import tracking
from partcraft_kedro.compute import Engine
from partcraft_kedro.evaluation.measures import names_with
from partcraft_kedro.options import BaseModelOptions, ComputeOptions, GenerateOptions, TrainOptions
from partcraft_kedro.stages import Stage, StageRef, Stages

_WORK = "partcraft_kedro.pipelines.train.work"
CACHING = Stage("latents", "05_model_input", version=2, work=f"{_WORK}.caching")
TRAINING = Stage("training", "06_models", version=8, work=f"{_WORK}.training")
PACKING = Stage("adapter", "06_models", version=1, work=f"{_WORK}.packing")


def cache_latents(records: pd.DataFrame, base: BaseModelOptions, compute: ComputeOptions, stages: Stages) -> StageRef:
    """The training pictures as the VAE encodes them, in both flips."""
    seen = {"records": records, "base": base.only("model", "config", "size", "device")}
    with Engine(compute, base.device, stages.root) as engine:
        return stages.run(CACHING, seen, {"engine": engine})


def train_adapter(
    latents: StageRef,
    prompts: pd.DataFrame,
    records: pd.DataFrame,
    part_masks: Path,
    part_predictor: Path,
    codes: pd.DataFrame,
    part_names: dict[int, str],
    base: BaseModelOptions,
    train: TrainOptions,
    generate: GenerateOptions,
    stages: Stages,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Train, or go on, or find it done; returns the folder of the adapter, which carries its parts, the losses, and a
    table of the pictures sampled on the way, always of the same prompts and noise: step, id, the measures of codes,
    path, and source_path, the real picture."""
    log_samples = partial(tracking.log_samples, folder=stages.root)
    trained = stages.run(
        TRAINING,
        {
            "latents": latents,
            "prompts": prompts,
            "records": records,
            "part_masks": part_masks,
            "part_predictor": part_predictor,
            "base": base,
            "train": train,
            "sampling": generate.sampling,
        },
        {"root": stages.root, "on_log": tracking.log_step, "on_samples": log_samples},
    )
    losses = trained.table("losses")
    samples = trained.tables("samples/step_*.parquet")
    if trained.found:
        tracking.log_curve(losses)
        for of_step in samples:
            log_samples(of_step)
    none = pd.DataFrame(
        columns=["step", "id", *names_with(of_codes=True), "path", "source_path"]
    )  # where memory held not one
    # A part may get another name without being learnt anew.
    packed = stages.run(
        PACKING,
        {
            "trained": trained,
            "records": records,
            "part_masks": part_masks,
            "part_predictor": part_predictor,
            "codes": codes,
            "part_names": part_names,
        },
        {"root": stages.root},
    )
    return packed.folder / "adapter", losses, pd.concat(samples or [none])
