"""The `features` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.features.nodes import extract_features


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                extract_features,
                ["records", "params:features", "params:base", "params:compute", "params:stages"],
                "features",
                name="extract_features",
            )
        ],
        tags="features",
    )
