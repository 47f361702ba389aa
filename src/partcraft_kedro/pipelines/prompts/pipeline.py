"""The `prompts` stage."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.prompts.nodes import build_prompts


def create_pipeline() -> Pipeline:
    return Pipeline([Node(build_prompts, ["records", "codes"], "prompts", name="build_prompts")], tags="prompts")
