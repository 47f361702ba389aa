"""Generation: plan reconstructions and compositions, then sample them."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from partcraft_kedro.compute import Engine
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.plan import make_plan
from partcraft_kedro.options import BaseModelOptions, ComputeOptions, GenerateOptions
from partcraft_kedro.stages import Stage, StageRef, Stages
from partcraft_kedro.weights import adapter_fingerprint

GENERATION = Stage("pictures", "07_model_output", version=7, work="partcraft_kedro.pipelines.generate.work.generation")
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
    codes = np.stack(chosen["code"])
    # Each source gives at least one part, the base too.
    max_sources = min(generate.max_sources, *codes.shape)
    if max_sources < generate.max_sources:
        _logger.warning(
            "Compositions are of at most %d instead of generate.max_sources=%d sources: the split %r has %d pictures "
            "of %d parts, the background included.",
            *(max_sources, generate.max_sources, generate.split, *codes.shape),
        )
    return make_plan(
        list(chosen["id"]),
        codes,
        reconstructions=generate.reconstructions,
        compositions=generate.compositions,
        max_sources=max_sources,
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
    compute: ComputeOptions,
    stages: Stages,
) -> StageRef:
    """Sample every planned picture."""
    trained = StageRef(adapter, adapter_fingerprint(adapter, stages.root / ".digests"))  # whatever its parts are called
    seen = {"plan": picture_plan, "adapter": trained, "part_predictor": part_predictor, "base": base}
    seen |= {"sampling": generate.sampling, "seed": generate.seed}
    with Engine(compute, base.device, stages.root) as engine:
        return stages.run(GENERATION, seen, {"engine": engine})
