import pytest

from partcraft_kedro.pipeline_registry import register_pipelines

STAGES = ["images", "features", "parts", "prompts", "train", "generate", "evaluate", "report"]


def test_kedro_viz_shows_a_box_for_each_stage() -> None:
    pipelines = register_pipelines()
    for node in pipelines["report"].nodes:
        assert node.namespace in node.tags  # a box is what a tag runs
    assert {node.namespace for node in pipelines["__default__"].nodes} == set(STAGES)


@pytest.mark.parametrize("name", ["__default__", "report", "point"])
def test_datasets_and_options_are_called_as_in_the_catalog(name) -> None:
    assert not [dataset for dataset in register_pipelines()[name].datasets() if "." in dataset]
