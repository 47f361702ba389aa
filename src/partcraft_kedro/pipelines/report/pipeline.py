"""The `report` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.report import nodes


def create_pipeline() -> Pipeline:
    options = ["params:evaluate", "params:stages"]
    return Pipeline(
        [
            Node(
                nodes.draw_reconstructions,
                ["scores", "records", *options],
                "reconstructions_figure",
                name="draw_reconstructions",
            ),
            Node(
                nodes.draw_compositions,
                ["scores", "records", "part_masks", "part_names", "discovery_scores", *options],
                "compositions_figure",
                name="draw_compositions",
            ),
            Node(
                nodes.draw_transfers,
                ["scores", "records", "part_masks", "part_names", *options],
                "transfers_figure",
                name="draw_transfers",
            ),
            Node(nodes.draw_losses, "training_losses", "losses_figure", name="draw_losses"),
            Node(nodes.draw_scores, "score_table", "scores_figure", name="draw_scores"),
        ],
        tags="report",
    )
