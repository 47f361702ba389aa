"""Generation: plan reconstructions and compositions, then sample them."""

from pathlib import Path

import pandas as pd

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.compose import plan_pictures as plan
from partcraft_kedro.options import BaseModelOptions, DataOptions, GenerateOptions
from partcraft_kedro.stages import Stage, fingerprint_of


def plan_pictures(prompts: pd.DataFrame, generate: GenerateOptions) -> pd.DataFrame:
    """Choose the pictures to reconstruct and the parts to compose."""
    chosen = prompts[prompts["split"] == generate.split]
    if len(chosen) < generate.most_sources:
        raise UserError(
            f"generate.most_sources={generate.most_sources} needs that many pictures in the split "
            f"{generate.split!r}, which has {len(chosen)}."
        )
    import numpy as np

    return plan(
        list(chosen["id"]),
        np.stack(chosen["code"]),
        reconstructions=generate.reconstructions,
        compositions=generate.compositions,
        most_sources=generate.most_sources,
        seed=generate.seed,
    )


def generate_pictures(
    picture_plan: pd.DataFrame,
    adapter: Path,
    part_predictor: Path,
    base: BaseModelOptions,
    generate: GenerateOptions,
    data: DataOptions,
) -> dict:
    """Sample every planned picture; returns their folder, relative to the data folder, and its fingerprint."""
    with Stage(
        data.layer("07_model_output"),
        "pictures",
        version=3,
        options={"sampling": generate.sampling.model_dump(), "seed": generate.seed, "precision": base.precision},
        inputs={"plan": fingerprint_of(picture_plan), "adapter": fingerprint_of(adapter, data.digests)},
    ) as stage:
        if not stage.finished:
            from partcraft_kedro.generation.sampling import write_pictures
            from partcraft_kedro.model.partcraft import PartCraft
            from partcraft_kedro.parts.predictor import PartPredictor

            model = PartCraft.load(adapter, base.device, base.precision, base.model)
            predictor = PartPredictor.load(part_predictor, base.device)
            of_adapter = model.settings["variants"]
            of_predictor = [len(variants) for variants in predictor.variants]
            if of_adapter != of_predictor:
                raise UserError(
                    f"The adapter {adapter} was made for M={len(of_adapter) - 1} parts with {of_adapter} variants, but "
                    f"the part predictor has M={len(of_predictor) - 1} with {of_predictor}: train again, or load the "
                    "predictor's version that belongs to it."
                )
            write_pictures(
                model,
                list(picture_plan["prompt"]),
                list(picture_plan["id"]),
                generate.sampling,
                generate.seed,
                stage.folder,
            )
            stage.finish()
    folder = stage.folder.relative_to(data.folder).as_posix()
    return {"folder": folder, "fingerprint": stage.fingerprint, "pictures": len(picture_plan)}
