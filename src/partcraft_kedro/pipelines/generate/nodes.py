"""Generation: plan reconstructions and compositions, then sample them."""

import logging
from pathlib import Path

import pandas as pd

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.compose import plan_pictures as plan
from partcraft_kedro.options import BaseModelOptions, DataOptions, GenerateOptions
from partcraft_kedro.stages import Stage, fingerprint_of

_logger = logging.getLogger(__name__)


def plan_pictures(prompts: pd.DataFrame, part_names: dict[int, str], generate: GenerateOptions) -> pd.DataFrame:
    """Choose the pictures to reconstruct, and the parts to compose and to transfer."""
    numbers = {name: part for part, name in part_names.items()}
    if unknown := [name for name in generate.transferred if name not in numbers]:
        raise UserError(f"generate.transferred={unknown[0]!r} is no part: there are {', '.join(numbers)}.")
    chosen = prompts[prompts["split"] == generate.split]
    if chosen.empty:
        raise UserError(
            f"generate.split={generate.split!r} has no pictures: give generate.split=train, or a larger "
            "images.test_fraction, or more pictures."
        )
    import numpy as np

    codes = np.stack(chosen["code"])
    # Each source gives at least one part, the base too.
    most_sources = min(generate.most_sources, *codes.shape)
    if most_sources < generate.most_sources:
        _logger.warning(
            "Compositions are of at most %d instead of generate.most_sources=%d sources: the split %r has %d pictures "
            "of %d parts, the background included.",
            *(most_sources, generate.most_sources, generate.split, *codes.shape),
        )
    return plan(
        list(chosen["id"]),
        codes,
        reconstructions=generate.reconstructions,
        compositions=generate.compositions,
        most_sources=most_sources,
        transfers=generate.transfers,
        transferred={name: numbers[name] for name in generate.transferred},
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
        options={
            "sampling": generate.sampling.model_dump(exclude={"batch_size"}),
            "seed": generate.seed,
            "precision": base.precision,
        },
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
