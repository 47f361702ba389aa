import numpy as np
import pandas as pd
import pytest

from partcraft_kedro.evaluation.figures import compositions_figure, transfers_figure
from partcraft_kedro.images.crops import crop_to
from partcraft_kedro.parts.figures import variants_figure


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
    head, tail = variants_figure(sheets, 3).axes
    assert [axis.get_title() for axis in (head, tail)] == ["1 head", "2 tail"]
    assert [label.get_text() for label in head.get_yticklabels()] == ["[1,7]", "[1,0]"]
    shown = [(axis.images[0].get_array()[44::92, 44::92, 0] == 0).tolist() for axis in (head, tail)]
    assert shown == [[[True, True, False], [True, False, False]], [[True, True, True], [False, False, False]]]


def test_without_compositions_the_figure_says_so():
    figure = compositions_figure([], [], None, np.empty((0, 8, 8, 3), np.uint8), pd.DataFrame(columns=["emr"]))
    assert "No compositions" in figure.texts[0].get_text()


def grey(value):
    return np.full((8, 8, 3), value, np.uint8)


def shown_in(figure, rows):
    """The grey of each cell, row by row; None for one that is left out."""
    greys = [int(axis.images[0].get_array()[0, 0, 0]) if axis.get_visible() else None for axis in figure.axes]
    return np.array(greys, object).reshape(rows, -1).tolist()


@pytest.mark.parametrize("known", [False, True])
def test_compositions_stand_beside_their_sources_and_what_was_asked_for(known):
    sources, made = [[grey(1), grey(2)], [grey(3), grey(4), grey(5)]], np.stack([grey(6), grey(7)])
    asked = [grey(8), grey(9)] if known else None
    scores = pd.DataFrame({"emr": [0.5, 1.0]})
    figure = compositions_figure(sources, [["head"], ["tail", "$x$"]], asked, made, scores)
    expected = [[1, 2, None, 8, 6], [3, 4, 5, 9, 7]] if known else [[1, 2, None, 6], [3, 4, 5, 7]]
    assert shown_in(figure, 2) == expected
    labels = [axis.get_xlabel() for axis in figure.axes[len(expected[0]) :]]
    assert labels == ["base", "+ tail", "+ $x$", *["asked for"][:known], "composed, EMR 1.00"]


def test_transfers_stand_beside_their_pairs():
    pairs = [np.stack([grey(1), grey(2)]), np.stack([grey(3), grey(4)])]
    made = np.arange(5, 11, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((8, 8, 3), np.uint8)
    figure = transfers_figure(pairs, made, ["hair", "eyes", "hair and eyes"])
    assert shown_in(figure, 2) == [[1, 2, 5, 6, 7], [3, 4, 8, 9, 10]]
    titles = [axis.get_title().replace("\n", " ") for axis in figure.axes]
    assert titles == ["A", "B", "A with hair of B", "A with eyes of B", "A with hair and eyes of B", *[""] * 5]


def test_without_transfers_the_figure_says_so():
    figure = transfers_figure([], np.empty((0, 0, 8, 8, 3), np.uint8), [])
    assert "No transfers" in figure.texts[0].get_text()
