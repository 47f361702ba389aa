"""What sweeps found."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.experiments import nodes


def create_pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(
                nodes.collect_points,
                "params:stages",
                ["sweep_points", "sweep_scores", "sweep_samples", "sweep_compositions", "sweep_options"],
                name="collect_points",
            ),
            Node(
                nodes.summarise_sweeps,
                ["sweep_points", "sweep_scores", "params:stages"],
                "sweep_summary",
                name="summarise_sweeps",
            ),
            *(
                Node(
                    update_wrapper(partial(nodes.draw_sweep, name), nodes.draw_sweep),
                    "sweep_summary",
                    [f"{name}_figure", f"{name}_plot"],
                    name=f"draw_{name}",
                )
                for name in nodes.SWEEPS
            ),
            Node(nodes.draw_own_sweep, "sweep_summary", ["own_sweep_figure", "own_sweep_plot"], name="draw_own_sweep"),
            Node(
                nodes.draw_learning,
                ["sweep_points", "sweep_samples", "params:stages"],
                ["stages_figure", "learning_figure", "learning_plot"],
                name="draw_learning",
            ),
            Node(
                nodes.write_page,
                [
                    "sweep_points",
                    "sweep_scores",
                    "sweep_samples",
                    "sweep_compositions",
                    "sweep_options",
                    "params:stages",
                ],
                "experiments_page",
                name="write_page",
            ),
        ],
        tags="experiments",
    )
