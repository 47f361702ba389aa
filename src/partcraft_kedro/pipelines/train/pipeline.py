"""The `train` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.train.nodes import cache_latents, train_adapter


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                cache_latents,
                ["records", "params:base", "params:compute", "params:stages"],
                "latents",
                name="cache_latents",
            ),
            Node(
                train_adapter,
                [
                    "latents",
                    "prompts",
                    "records",
                    "part_masks",
                    "part_predictor",
                    "codes",
                    "part_names",
                    "params:base",
                    "params:train",
                    "params:generate",
                    "params:stages",
                ],
                ["adapter", "training_losses", "training_samples"],
                name="train_adapter",
            ),
        ],
        tags="train",
    )
