"""What the stage of features computes."""

from pathlib import Path
from typing import Any

import pandas as pd

from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import write_shards
from partcraft_kedro.options import FeaturesOptions
from partcraft_kedro.stages import StageRef


def extraction(
    place: StageRef, *, records: pd.DataFrame, features: FeaturesOptions, device: str, root: Path
) -> dict[str, Any]:
    """Writes shards; returns how many pictures they are of, their grid and width, and what `FeatureExtractor` was
    given."""
    given = features.model_dump(include={"model", "layer", "final_norm", "size", "mirrored"})
    extractor = FeatureExtractor(**given, device=device)
    sizes = features.model_dump(include={"batch_size", "shard_size"})
    write_shards(extractor, [root / path for path in records["path"]], place.folder, **sizes)
    return {"pictures": len(records), "grid": extractor.grid, "width": extractor.width, "extractor": given}
