"""The `images` stage, and the `download` that may come before it."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.datasets import unless_drawn
from partcraft_kedro.pipelines.images.nodes import (
    check_pictures,
    download_pictures,
    draw_contact_sheet,
    read_pictures,
)


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(read_pictures, ["params:images", "params:stages"], "all_records", name="read_pictures"),
            Node(
                check_pictures,
                ["all_records", "params:images", "params:stages"],
                ["records", "quarantine"],
                name="check_pictures",
            ),
            Node(
                unless_drawn(draw_contact_sheet),
                ["records", "quarantine", "params:stages"],
                "contact_sheet",
                name="draw_contact_sheet",
            ),
        ],
        tags="images",
    )


def create_download_pipeline() -> Pipeline:
    return Pipeline(
        [Node(download_pictures, ["params:images", "params:stages"], "downloaded", name="download_pictures")],
        tags="download",
    )
