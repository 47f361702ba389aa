"""The `generate` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.generate.nodes import generate_pictures, plan_pictures


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(plan_pictures, ["prompts", "part_names", "params:generate"], "picture_plan", name="plan_pictures"),
            Node(
                generate_pictures,
                [
                    "picture_plan",
                    "adapter",
                    "part_predictor",
                    "params:base",
                    "params:generate",
                    "params:compute",
                    "params:stages",
                ],
                "generated_pictures",
                name="generate_pictures",
            ),
        ],
        tags="generate",
    )
