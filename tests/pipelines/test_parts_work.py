import numpy as np
import pandas as pd

from partcraft_kedro.pipelines.parts.work import some_training


def test_some_training_pictures_are_drawn_anew_for_each_seed_and_all_taken_where_there_are_few() -> None:
    records = pd.DataFrame({"split": ["train", "test"] * 500})
    rows = some_training(records, 100, 0, "trial")
    assert len(set(rows)) == 100
    assert (np.diff(rows) > 0).all()
    assert (records["split"][rows] == "train").all()
    assert np.array_equal(rows, some_training(records, 100, 0, "trial"))
    assert not np.array_equal(rows, some_training(records, 100, 1, "trial"))
    assert 300 < rows.mean() < 700  # of all of them
    assert np.array_equal(some_training(records, 500, 0, "trial"), np.arange(0, 1000, 2))
