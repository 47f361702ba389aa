"""What the stage of features computes."""

from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import pandas as pd

from partcraft_kedro.compute import Engine, Work
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import shape_of, write_shards
from partcraft_kedro.options import FeaturesOptions
from partcraft_kedro.stages import StageRef


def extraction(place: StageRef, *, records: pd.DataFrame, features: FeaturesOptions, engine: Engine) -> dict[str, Any]:
    """Writes shards; returns how many pictures they are of, their grid and width, and what `FeatureExtractor` was
    given."""
    given = features.model_dump(include={"model", "layer", "final_norm", "size", "mirrored"})
    sizes = features.model_dump(include={"batch_size", "shard_size"})
    open_work = partial(_open, given, sizes, engine.device, engine.root, place.folder)
    engine.map(open_work, records["path"], features.shard_size, "extract features")
    patches, width = shape_of(place.folder)
    return {"pictures": len(records), "grid": isqrt(patches), "width": width, "extractor": given}


def _open(given: dict[str, Any], sizes: dict[str, int], device: str, root: Path, folder: Path) -> Work:
    extractor = FeatureExtractor(**given, device=device)

    def work(paths: pd.Series, first: int) -> None:
        write_shards(extractor, [root / path for path in paths], folder, **sizes, first=first)

    return work
