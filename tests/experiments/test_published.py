from math import isclose

import pytest

from partcraft_kedro.experiments import published
from partcraft_kedro.experiments.published import PAPER_OPTIONS_OF, SOURCES, published_value
from partcraft_kedro.experiments.summary import column_titles


@pytest.mark.parametrize(
    ("dataset", "method", "weight", "task", "measure", "value", "source"),
    [
        ("cub", "partcraft", 0.1, "fid", "frechet", 19.08, "Tab. 1"),
        ("cub", "partcraft", 0.01, "reconstruction", "emr", 0.460, "Tab. 1"),
        ("cub", "partcraft", float("1e-05"), "reconstruction", "cosim", 0.872, "Tab. 1"),
        ("cub", "break_a_scene", 0.001, "reconstruction", "emr", 0.344, "E.2"),
        ("cub", "break_a_scene", 0.01, "fid", "frechet", 20.05, "figures"),
        ("cub", "break_a_scene", 0.01, "reconstruction", "cosim", 0.854, "E.2"),
        ("cub", "custom_diffusion", 0.0, "fid", "frechet", 37.61, "figures"),
        ("cub", "dreambooth", 0.0, "reconstruction", "cosim", 0.856, "figures"),
        ("cub", "textual_inversion", 0.0, "composition of 4", "emr", 0.092, "figures"),
        ("cub", "partcraft", 0.01, "composition of 3", "cosim", 0.801, "figures"),
        ("cub", "no_bottleneck", 0.01, "composition of 3", "emr", 0.236, "figures"),
        ("cub", "mse_attention", 0.01, "fid", "frechet", 13.55, "figures"),
        ("dogs", "partcraft", 0.01, "composition of 2", "emr", 0.251, "figures"),
    ],
)
def test_numbers_stand_as_in_the_paper(dataset, method, weight, task, measure, value, source):
    published = published_value(dataset, method, weight, task, measure)
    assert published.value == value
    assert source in SOURCES[published.source]


@pytest.mark.parametrize(
    ("dataset", "method", "weight", "task", "measure"),
    [
        ("creatures", "partcraft", 0.01, "reconstruction", "emr"),
        ("dogs", "partcraft", 0.01, "reconstruction", "emr"),
        ("cub", "partcraft", 0.1, "composition of 2", "emr"),  # Fig. 5 has curves, but no numbers
        ("cub", "partcraft", 0.01, "distance", "frechet"),  # another network's features than FID's
        ("cub", "no_bottleneck", 0.01, "reconstruction", "emr"),
        ("cub", "no_attention_loss", 0.0, "reconstruction", "emr"),
        ("cub", "dreambooth", 0.01, "reconstruction", "emr"),  # no attention loss in the paper's
    ],
)
def test_what_the_paper_does_not_report_is_none(dataset, method, weight, task, measure):
    assert published_value(dataset, method, weight, task, measure) is None


def test_every_number_of_the_paper_has_a_column_beside_which_it_stands():
    assert {key[3:] for key in published._NUMBERS} <= column_titles().keys()


@pytest.mark.parametrize("dataset", ["cub", "dogs"])
def test_steps_are_100_epochs_of_batches_of_two(dataset):
    options = PAPER_OPTIONS_OF[dataset]
    assert isclose(options["train.steps"], 100 * options["generate.reconstructions"] / 2)
