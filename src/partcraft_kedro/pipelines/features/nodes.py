"""Dense features of every picture."""

import pandas as pd

from partcraft_kedro.assets import model_fingerprint
from partcraft_kedro.options import BaseModelOptions, DataOptions, FeaturesOptions
from partcraft_kedro.stages import Stage, fingerprint_of


def extract_features(
    records: pd.DataFrame, features: FeaturesOptions, base: BaseModelOptions, data: DataOptions
) -> dict:
    """Extract features in shards; returns their folder, relative to the data folder, their fingerprint, and what
    `FeatureExtractor` was given."""
    extractor_options = features.model_dump(include={"model", "layer", "final_norm", "mirrored"})
    with Stage(
        data.layer("04_feature"),
        "features",
        version=2,
        options=features.model_dump(exclude={"workers"}),
        inputs={
            "records": fingerprint_of(records),
            "model": model_fingerprint(features.model, "feature_extractor", "features.model", data.digests),
        },
    ) as stage:
        if not stage.finished:
            from partcraft_kedro.features.extractor import FeatureExtractor
            from partcraft_kedro.features.shards import write_shards

            paths = [data.folder / path for path in records["path"]]
            extractor = FeatureExtractor(**extractor_options, device=base.device)
            sizes = features.model_dump(include={"batch_size", "shard_size", "workers"})
            write_shards(extractor, paths, stage.folder, **sizes)
            stage.finish({"pictures": len(paths), "grid": extractor.grid, "width": extractor.width})
    folder = stage.folder.relative_to(data.folder).as_posix()
    return {"folder": folder, "fingerprint": stage.fingerprint, "extractor": extractor_options, **stage.summary}
