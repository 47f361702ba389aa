"""What the stage of generation computes."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from partcraft_kedro.compute import Engine, Work
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.sampling import Sampler, write_pictures
from partcraft_kedro.model.compilation import compile_networks
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import BaseModelOptions, SamplingOptions
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.stages import StageRef


def generation(
    place: StageRef,
    *,
    plan: pd.DataFrame,
    adapter: StageRef,
    part_predictor: Path,
    base: BaseModelOptions,
    sampling: SamplingOptions,
    seed: int,
    engine: Engine,
) -> None:
    """Writes `<id>.png` of every planned picture, with its recipe inside, and `looked/<id>.png`."""
    copies = place.folder / "copies"
    shared = replace(adapter, folder=engine.shared(adapter.folder, copies))
    open_work = partial(_open, shared, part_predictor, base, sampling, seed, place.folder)
    engine.map(open_work, plan[["id", "prompt", "noise"]], sampling.batch_size, "sample pictures")
    shutil.rmtree(copies, ignore_errors=True)


def _open(
    adapter: StageRef, part_predictor: Path, base: BaseModelOptions, sampling: SamplingOptions, seed: int, folder: Path
) -> Work:
    model = PartCraft.load(adapter.folder, base.device, base.precision, base.model, base.config)
    predictor = PartPredictor.load(part_predictor, base.device)
    of_adapter = model.settings["variants"]
    of_predictor = [len(variants) for variants in predictor.variants]
    if of_adapter != of_predictor:
        raise UserError(
            f"The adapter {adapter.folder} was made for M={len(of_adapter) - 1} parts with {of_adapter} variants, but "
            f"the part predictor has M={len(of_predictor) - 1} with {of_predictor}: train again, or load the version "
            "of the predictor that belongs to it."
        )
    if sampling.compile:
        compile_networks([model.pipeline.unet], model.device, graphs=False)  # schedulers keep what it returns
    sampler = Sampler(model, sampling, seed)

    def work(plan: pd.DataFrame, first: int) -> None:
        prompts, names, noises = (list(plan[column]) for column in ("prompt", "id", "noise"))
        write_pictures(sampler, prompts, names, noises, adapter.fingerprint, folder)

    return work
