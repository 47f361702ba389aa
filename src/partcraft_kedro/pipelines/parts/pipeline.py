"""The `parts` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.parts.nodes import discover_parts, label_pictures


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                discover_parts,
                ["features", "records", "params:parts", "params:data"],
                "part_predictor",
                name="discover_parts",
            ),
            Node(
                label_pictures,
                ["part_predictor", "features", "records", "params:data"],
                ["part_masks", "codes"],
                name="label_pictures",
            ),
        ],
        tags="parts",
    )
