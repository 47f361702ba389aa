"""What the stage of generation computes."""

from pathlib import Path

import pandas as pd

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import fingerprint_of
from partcraft_kedro.generation.sampling import Sampler, write_pictures
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import BaseModelOptions, SamplingOptions
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.stages import StageRef


def generation(
    place: StageRef,
    *,
    plan: pd.DataFrame,
    adapter: Path,
    part_predictor: Path,
    base: BaseModelOptions,
    sampling: SamplingOptions,
    seed: int,
) -> None:
    """Writes `<id>.png` of every planned picture, with its recipe inside, and `looked/<id>.png`."""
    model = PartCraft.load(adapter, base.device, base.precision, base.model, base.config)
    predictor = PartPredictor.load(part_predictor, base.device)
    of_adapter = model.settings["variants"]
    of_predictor = [len(variants) for variants in predictor.variants]
    if of_adapter != of_predictor:
        raise UserError(
            f"The adapter {adapter} was made for M={len(of_adapter) - 1} parts with {of_adapter} variants, but the "
            f"part predictor has M={len(of_predictor) - 1} with {of_predictor}: train again, or load the predictor's "
            "version that belongs to it."
        )
    sampler = Sampler(model, sampling, seed)
    prompts, names, noises = (list(plan[column]) for column in ("prompt", "id", "noise"))
    write_pictures(sampler, prompts, names, noises, fingerprint_of(adapter), place.folder)
