"""The `evaluate` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.evaluate.nodes import collect_scores, score_pictures


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                score_pictures,
                [
                    "picture_plan",
                    "generated_pictures",
                    "records",
                    "part_predictor",
                    "part_masks",
                    "discovery_scores",
                    "params:base",
                    "params:features",
                    "params:evaluate",
                    "params:compute",
                    "params:stages",
                ],
                ["scores", "generation_scores"],
                name="score_pictures",
            ),
            Node(
                collect_scores,
                ["discovery_scores", "generation_scores", "training_losses", "part_names"],
                ["score_table", "metrics"],
                name="collect_scores",
            ),
        ],
        tags="evaluate",
    )
