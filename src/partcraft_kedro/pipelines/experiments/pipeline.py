"""What sweeps found."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.experiments import nodes


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                nodes.collect_points,
                "params:data",
                ["sweep_points", "sweep_scores", "sweep_samples"],
                name="collect_points",
            ),
        ],
        tags="experiments",
    )
