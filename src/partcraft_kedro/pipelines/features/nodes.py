"""Dense features of every picture."""

import pandas as pd

from partcraft_kedro.compute import Engine
from partcraft_kedro.options import BaseModelOptions, ComputeOptions, FeaturesOptions
from partcraft_kedro.stages import Stage, StageRef, Stages

EXTRACTION = Stage("features", "04_feature", version=3, work="partcraft_kedro.pipelines.features.work.extraction")


def extract_features(
    records: pd.DataFrame, features: FeaturesOptions, base: BaseModelOptions, compute: ComputeOptions, stages: Stages
) -> StageRef:
    """Features of every picture, in shards."""
    with Engine(compute, base.device, stages.root) as engine:
        return stages.run(EXTRACTION, {"records": records, "features": features}, {"engine": engine})
