import numpy as np
import pytest
from PIL import Image

from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.regions import load_looked, overlap

ONE = np.array([[[0, 1, 1], [0, 1, 0], [0, 2, 2]]], np.uint8)
OTHER = np.array([[[0, 1, 0], [1, 1, 0], [3, 3, 3]]], np.uint8)


def test_overlap_by_hand():
    """Part 1: two places of four; parts 2 and 3 each in one alone; part 4 in neither."""
    np.testing.assert_array_equal(overlap(ONE, OTHER, 5), [[np.nan, 2 / 4, 0, 0, np.nan]])


def test_where_tokens_looked_is_brought_to_the_grid_of_masks(tmp_path):
    Image.fromarray(np.array([[1, 2], [3, 0]], np.uint8)).save(tmp_path / "a.png")
    (finer,) = load_looked([tmp_path / "a.png"], 4)
    assert finer.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]
    Image.fromarray(finer).save(tmp_path / "b.png")
    assert load_looked([tmp_path / "b.png"], 2).tolist() == [[[1, 2], [3, 0]]]
    Image.fromarray(np.arange(9, dtype=np.uint8).reshape(3, 3)).save(tmp_path / "odd.png")
    assert load_looked([tmp_path / "odd.png"], 2).tolist() == [[[0, 2], [6, 8]]]
    with pytest.raises(UserError, match=r"c\.png cannot be read"):
        load_looked([tmp_path / "c.png"], 2)
