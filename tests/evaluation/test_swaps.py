"""Transfer, preservation and leakage on a case worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from partcraft_kedro.evaluation.metrics import mean_of_known
from partcraft_kedro.evaluation.swaps import Swaps, equal

NAN = np.nan
# A chain of compositions of A, a pair of transfers, and a reconstruction.
PLAN = pd.DataFrame(
    [
        ("one", [], "", "one"),
        ("two", [1], "one", "one"),
        ("three", [1, 3], "two", "one"),
        ("nothing", [], "", "nothing"),
        ("both", [1, 2], "nothing", "nothing"),
        ("real", [], "", "real"),
    ],
    columns=["id", "swapped", "before", "noise"],
)
# Of background, head, wing, legs. A: a green head, a red wing, red legs on sand. B: a blue head. C: no legs.
ASKED = np.array(
    [
        ["sand", "green", "red", "red"],
        ["sand", "blue", "red", "red"],
        ["sand", "blue", "red", None],
        ["sky", "white", "white", "white"],
        ["sky", "black", "black", "white"],
        ["sea", "green", "green", "green"],
    ],
    object,
)
SEEN = np.array(
    [
        ["sand", "green", "green", "red"],  # the wing is wrong from the start
        ["sand", "blue", "green", "blue"],  # the head came; blue leaked into the legs
        ["sky", "green", "green", None],  # the legs went as asked; the place changed, and the head that had come
        ["sky", "white", "white", None],  # the legs are missing
        ["sky", "black", "white", None],  # the head came, the wing did not
        ["sea", "green", "green", "green"],
    ],
    object,
)


@pytest.fixture
def swaps():
    return Swaps.of_plan(PLAN, labels=4)


@pytest.fixture
def measures(swaps):
    same = np.full(SEEN.shape, NAN)
    for row, before in ((1, 0), (2, 1), (4, 3)):
        same[row] = equal(SEEN[[row]], SEEN[[before]])[0]
    return swaps.measures(equal(ASKED, SEEN), same)


def test_what_was_swapped_in_all_and_since_the_picture_before(swaps):
    assert swaps.swapped.astype(int).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 1],
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]
    since = np.zeros((6, 4), int)
    since[1, 1] = since[2, 3] = since[4, 1] = since[4, 2] = 1
    assert swaps.since.astype(int).tolist() == since.tolist()
    assert swaps.before.tolist() == [-1, 0, 1, -1, 3, -1]
    assert swaps.chains.tolist() == [0, 0, 0, 1, 1, 2]


def test_a_part_that_shows_in_neither_is_not_compared():
    found = equal(np.array([["red", None, "red", None]], object), np.array([["red", "red", None, None]], object))
    np.testing.assert_array_equal(found, [[1, 0, 0, NAN]])
    np.testing.assert_array_equal(equal(np.array([[3, 4]], object), np.array([[3, 5]], object)), [[1, 0]])


def test_of_each_part_by_hand(measures):
    np.testing.assert_array_equal(
        measures["transfer"],
        [
            [NAN, NAN, NAN, NAN],
            [NAN, 1, NAN, NAN],
            [NAN, 0, NAN, NAN],  # legs: asked to be absent, and absent: nothing to compare
            [NAN, NAN, NAN, NAN],
            [NAN, 1, 0, NAN],
            [NAN, NAN, NAN, NAN],
        ],
    )
    np.testing.assert_array_equal(
        measures["preservation"],
        [
            [NAN, NAN, NAN, NAN],
            [1, NAN, 0, 0],
            [0, NAN, 0, NAN],
            [NAN, NAN, NAN, NAN],
            [1, NAN, NAN, 0],
            [NAN, NAN, NAN, NAN],
        ],
    )
    np.testing.assert_array_equal(
        measures["leakage"],
        [
            [NAN, NAN, NAN, NAN],
            [0, NAN, 0, 1],  # the wing was as wrong before: no leakage
            [1, 1, 0, NAN],  # the head was swapped before: this time it should have stayed
            [NAN, NAN, NAN, NAN],
            [0, NAN, NAN, NAN],
            [NAN, NAN, NAN, NAN],
        ],
    )


def test_of_each_picture_by_hand(measures):
    by_hand = {
        "transfer": [NAN, 1, 0, NAN, 1 / 2, NAN],
        "preservation": [NAN, 1 / 3, 0, NAN, 1 / 2, NAN],
        "leakage": [NAN, 1 / 3, 2 / 3, NAN, 0, NAN],
    }
    for name, expected in by_hand.items():
        np.testing.assert_allclose(mean_of_known(measures[name], axis=1), expected, err_msg=name)


def test_leakage_by_swap_is_told_where_one_part_alone_was_swapped(swaps, measures):
    shares, counts = swaps.leakage_by_swap(measures["leakage"])
    np.testing.assert_array_equal(shares, [[NAN, NAN, NAN, NAN], [0, NAN, 0, 1], [NAN, NAN, NAN, NAN], [1, 1, 0, NAN]])
    assert counts.tolist() == [[0, 0, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
