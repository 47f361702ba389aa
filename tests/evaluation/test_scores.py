import numpy as np
import pandas as pd
import pytest

from partcraft_kedro.evaluation.measures import nest
from partcraft_kedro.evaluation.scores import random_others, summarise
from partcraft_kedro.randomness import numpy_generator


def test_the_floor_is_drawn_from_all_pictures_but_the_sources():
    """As by writing the candidates out and choosing among them, whatever the sources' places and order."""
    records = pd.DataFrame({"path": range(6)}, index=list("abcdef"))
    sources = [["a"], ["f"], ["c", "a"], ["e", "f"], ["d", "c", "b"], ["a", "b", "c", "d", "e"], ["b", "b"]] * 20
    plan = pd.DataFrame({"id": [f"picture {i}" for i in range(len(sources))], "sources": sources})
    expected = [
        numpy_generator(3, "floor", row.id).choice([name for name in records.index if name not in row.sources])
        for row in plan.itertuples()
    ]
    assert random_others(plan, records, seed=3) == expected
    assert set(expected) == set("abcdef")


def test_tasks_are_summed_up_apart():
    """Each number of sources, and each set of transferred parts; what was not measured is left out."""
    rows = [
        ("reconstruction", 1, "", 0.5, 1.0, np.nan),
        ("reconstruction", 1, "", 0.7, 1.0, np.nan),
        ("composition", 1, "", 0.1, 0.9, np.nan),
        ("composition", 2, "", 0.2, 0.8, 0.5),
        ("transfer", 2, "tail", 0.3, 0.7, 0.25),
        ("transfer", 2, "head", 0.4, 0.6, 0.75),
        ("transfer", 3, "tail and head", 0.6, 0.6, 0.5),
    ]
    scores = pd.DataFrame(rows, columns=["kind", "source_count", "transferred", "emr", "emr_ceiling", "transfer"])
    scores = scores.assign(cosim=0.5, cosim_ceiling=np.nan, shape=0.5, shape_ceiling=0.8, shape_floor=0.8)
    scores = scores.assign(**{f"{name}_floor": 0.0 for name in ("emr", "cosim", "transfer")}, transfer_ceiling=1.0)
    tree = nest(summarise(scores, resamples=50, seed=0))
    assert tree["reconstruction"]["emr"]["value"] == pytest.approx(0.6)
    assert tree["reconstruction"].keys() == {"emr", "cosim", "shape"}
    assert {count: of["emr"]["value"] for count, of in tree["composition"].items()} == {"1": 0.1, "2": 0.2}
    assert list(tree["transfer"]) == ["tail", "head", "tail and head"]  # in the order of the plan
    assert {parts: of["transfer"]["value"] for parts, of in tree["transfer"].items()} == {
        "tail": 0.25,
        "head": 0.75,
        "tail and head": 0.5,
    }
    head = tree["transfer"]["head"]
    assert (head["emr"]["ceiling"], head["emr"]["floor"], head["emr"]["n"]) == (0.6, 0.0, 1)
    assert head["cosim"]["ceiling"] is None
    assert (head["shape"]["ceiling"], head["shape"]["floor"]) == (0.8, None)  # any real picture has a good shape
