"""The `parts` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.datasets import unless_drawn
from partcraft_kedro.pipelines.parts import nodes


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                nodes.discover_parts,
                ["features", "records", "params:parts", "params:base", "params:compute", "params:stages"],
                "part_predictor",
                name="discover_parts",
            ),
            Node(
                nodes.label_pictures,
                ["part_predictor", "features", "records", "params:stages"],
                ["part_masks", "codes"],
                name="label_pictures",
            ),
            Node(
                nodes.score_discovery,
                ["records", "part_masks", "codes", "params:stages"],
                "discovery_scores",
                name="score_discovery",
            ),
            Node(nodes.name_parts, ["discovery_scores", "codes", "params:parts"], "part_names", name="name_parts"),
            Node(
                unless_drawn(nodes.draw_part_maps),
                ["records", "codes", "part_masks", "part_names", "params:evaluate", "params:stages"],
                "part_maps_figure",
                name="draw_part_maps",
            ),
            Node(
                unless_drawn(nodes.draw_variants),
                ["records", "codes", "part_masks", "part_names", "discovery_scores", "params:stages"],
                "variants_figure",
                name="draw_variants",
            ),
            Node(
                unless_drawn(nodes.draw_worst),
                ["records", "codes", "part_masks", "part_names", "params:stages"],
                "worst_figure",
                name="draw_worst",
            ),
        ],
        tags="parts",
    )
