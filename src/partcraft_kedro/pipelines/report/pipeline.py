"""The `report` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.datasets import unless_drawn
from partcraft_kedro.pipelines.report import nodes


def create_pipeline() -> Pipeline:
    options = ["params:evaluate", "params:stages"]
    return Pipeline(
        [
            Node(
                unless_drawn(nodes.draw_reconstructions),
                ["scores", "records", *options],
                "reconstructions_figure",
                name="draw_reconstructions",
            ),
            Node(
                unless_drawn(nodes.draw_compositions),
                ["scores", "records", "part_masks", "part_names", "discovery_scores", *options],
                "compositions_figure",
                name="draw_compositions",
            ),
            Node(
                unless_drawn(nodes.draw_transfers),
                ["scores", "records", "part_masks", "part_names", *options],
                "transfers_figure",
                name="draw_transfers",
            ),
            Node(unless_drawn(nodes.draw_swaps), "score_table", "swaps_figure", name="draw_swaps"),
            Node(
                unless_drawn(nodes.draw_leakage),
                ["scores", "generation_scores", "part_names", "params:stages"],
                "leakage_figure",
                name="draw_leakage",
            ),
            Node(
                unless_drawn(nodes.draw_regions),
                ["scores", "records", "part_masks", "part_names", *options],
                "regions_figure",
                name="draw_regions",
            ),
            Node(unless_drawn(nodes.draw_losses), "training_losses", "losses_figure", name="draw_losses"),
            Node(unless_drawn(nodes.draw_scores), "score_table", "scores_figure", name="draw_scores"),
        ],
        tags="report",
    )
