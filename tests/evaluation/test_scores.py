import pandas as pd

from partcraft_kedro.evaluation.scores import random_others
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
