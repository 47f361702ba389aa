import numpy as np
import pandas as pd
import pytest

from partcraft_kedro.evaluation.figures import crop_to, draw_compositions, draw_variants


def mask_of(*patches):
    mask = np.zeros((4, 4), bool)
    for row, column in patches:
        mask[row, column] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "rows", "columns"),
    [
        (mask_of((1, 2)), (0, 6), (2, 8)),  # one patch of 2 pixels, and one around it
        (mask_of((0, 0)), (0, 6), (0, 6)),  # at the edge: moved inside
        (mask_of((1, 1), (2, 2)), (0, 8), (0, 8)),
        (mask_of((0, 0), (3, 3)), (0, 8), (0, 8)),  # larger than the picture: all of it
    ],
)
def test_crops_are_squares_around_the_part(mask, rows, columns):
    picture = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    assert np.array_equal(crop_to(picture, mask), picture[slice(*rows), slice(*columns)])


def test_a_crop_is_around_its_part_whatever_the_grid():
    """37 patches on 256 pixels: the last one's middle is pixel 252.5."""
    picture = np.arange(256 * 256 * 3).reshape(256, 256, 3)
    mask = np.zeros((37, 37), bool)
    mask[36, 18] = True
    assert np.array_equal(crop_to(picture, mask), picture[235:256, 117:138])


def test_a_sheet_shows_every_crop_and_name():
    black = np.zeros((3, 3, 3), np.uint8)
    sheets = [("1 head", [("[1,7]", [black] * 2), ("[1,0]", [black])]), ("2 tail", [("[2,3]", [black] * 3)])]
    head, tail = draw_variants(sheets, 3).axes
    assert [axis.get_title() for axis in (head, tail)] == ["1 head", "2 tail"]
    assert [label.get_text() for label in head.get_yticklabels()] == ["[1,7]", "[1,0]"]
    shown = [(axis.images[0].get_array()[44::92, 44::92, 0] == 0).tolist() for axis in (head, tail)]
    assert shown == [[[True, True, False], [True, False, False]], [[True, True, True], [False, False, False]]]


def test_without_compositions_the_figure_says_so():
    figure = draw_compositions([], [], np.empty((0, 8, 8, 3), np.uint8), pd.DataFrame(columns=["emr"]))
    assert "No compositions" in figure.texts[0].get_text()
