"""The `pretrain` stage: how the embedded model was made. Hours on a laptop; nothing else needs it."""

from kedro.pipeline import Node, Pipeline

from partcraft_kedro.pipelines.pretrain.nodes import train_tiny


def create_pipeline() -> Pipeline:
    inputs = ["params:pretrain", "params:base", "params:stages"]
    return Pipeline([Node(train_tiny, inputs, "tiny", name="train_tiny")], tags="pretrain")
