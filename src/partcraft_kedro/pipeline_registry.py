"""The pipelines by name. A name runs everything that the stage needs, up to it; a tag runs the stage alone."""

from itertools import accumulate

from kedro.pipeline import Pipeline

from partcraft_kedro.pipelines.evaluate.pipeline import create_pipeline as evaluate
from partcraft_kedro.pipelines.experiments.pipeline import create_pipeline as experiments
from partcraft_kedro.pipelines.features.pipeline import create_pipeline as features
from partcraft_kedro.pipelines.generate.pipeline import create_pipeline as generate
from partcraft_kedro.pipelines.images.pipeline import create_download_pipeline as download
from partcraft_kedro.pipelines.images.pipeline import create_pipeline as images
from partcraft_kedro.pipelines.parts.pipeline import create_pipeline as parts
from partcraft_kedro.pipelines.pretrain.pipeline import create_pipeline as pretrain
from partcraft_kedro.pipelines.prompts.pipeline import create_pipeline as prompts
from partcraft_kedro.pipelines.report.pipeline import create_pipeline as report
from partcraft_kedro.pipelines.train.pipeline import create_pipeline as train

# What a sweep keeps of each of its points.
_OF_A_POINT = ("score_table", "training_samples", "reconstructions_figure", "compositions_figure")


def in_namespace(name: str, stage: Pipeline) -> Pipeline:
    """A stage as a box that opens in kedro-viz; datasets and options keep their names."""
    return Pipeline(stage, namespace=name, prefix_datasets_with_namespace=False)


def register_pipelines() -> dict[str, Pipeline]:
    stages = {
        "images": images(),
        "features": features(),
        "parts": parts(),
        "prompts": prompts(),
        "train": train(),
        "generate": generate(),
        "evaluate": evaluate(),
        "report": report(),
    }
    stages = {name: in_namespace(name, stage) for name, stage in stages.items()}
    up_to = dict(zip(stages, accumulate(stages.values()), strict=True))
    everything, sweeps = up_to["report"], in_namespace("experiments", experiments())
    return {
        "__default__": everything,
        **up_to,
        "report": everything + sweeps,
        "point": everything.to_outputs(*_OF_A_POINT),
        "experiments": sweeps,
        "download": download(),
        "pretrain": pretrain(),
    }
