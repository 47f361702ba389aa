"""The `images` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.images.nodes import check_pictures, draw_creatures


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(draw_creatures, ["params:images", "params:data"], "drawn_records", name="draw_creatures"),
            Node(
                check_pictures,
                ["drawn_records", "params:images", "params:data"],
                ["records", "quarantine"],
                name="check_pictures",
            ),
        ],
        tags="images",
    )
