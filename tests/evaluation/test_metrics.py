import math

import numpy as np
import pytest

from partcraft_kedro.evaluation.metrics import (
    bootstrap,
    both_absent,
    cosine_similarity,
    exact_matching_rate,
)

A = -1  # absent
INTENDED = np.array([[4, 2, 5, A], [4, A, 5, 0], [1, 1, 1, 1], [A, A, A, A]])
GENERATED = np.array([[4, 3, 5, A], [4, 2, A, 1], [1, 1, 1, 1], [A, A, A, A]])


def test_exact_matching_rate_by_hand():
    """Absent in both: left out. Absent in one: a mismatch. Nothing left: NaN."""
    rates = exact_matching_rate(INTENDED, GENERATED)
    assert rates[:3].tolist() == pytest.approx([2 / 3, 1 / 4, 1])
    assert math.isnan(rates[3])
    assert both_absent(INTENDED, GENERATED) == 1 + 4


def test_cosine_similarity_by_hand():
    """Cosines of 1, .6, absent in both; 0 for a part absent in one, whichever."""
    codes, generated = np.array([[0, 0, A], [0, A, 1]]), np.array([[0, 1, A], [A, 0, 1]])
    one, other, none = [1.0, 0.0], [0.6, 0.8], [0.0, 0.0]
    centroids = np.array([[one, one, none], [one, none, other]])
    found = np.array([[one, other, none], [none, one, other]])
    assert cosine_similarity(codes, generated, centroids, found).tolist() == pytest.approx([1.6 / 2, 1 / 3])


def test_bootstrap_of_many_values_is_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 900)
    result = bootstrap(np.append(values, [np.nan, np.nan]), resamples=2000, seed=0)
    half_width = 1.96 * values.std() / 30
    assert result["n"] == 900
    assert result["value"] == pytest.approx(values.mean())
    assert result["value"] - result["low"] == pytest.approx(half_width, rel=0.1)
    assert result["high"] - result["value"] == pytest.approx(half_width, rel=0.1)
    assert bootstrap(values, resamples=2000, seed=0) == result


def test_pictures_that_depend_on_each_other_are_resampled_together():
    """Four copies of each value tell no more than one: the interval is as wide as that of the values alone."""
    values = np.random.default_rng(0).normal(3, 2, 200)
    alone = bootstrap(values, resamples=2000, seed=0)
    together = bootstrap(values.repeat(4), resamples=2000, seed=0, groups=np.arange(200).repeat(4))
    assert together == alone | {"n": 800}
    apart = bootstrap(values.repeat(4), resamples=2000, seed=0)
    assert apart["high"] - apart["low"] == pytest.approx((alone["high"] - alone["low"]) / 2, rel=0.1)
    # Groups of unequal size: the mean is that of the pictures.
    assert bootstrap(np.array([1.0, 1, 4, np.nan]), 10, 0, np.array([7, 7, 3, 3]))["value"] == 2


def test_bootstrap_of_one_value_and_of_none():
    assert bootstrap(np.array([0.25]), 10, 0) == {"value": 0.25, "low": 0.25, "high": 0.25, "n": 1}
    empty = bootstrap(np.array([np.nan]), 10, 0)
    assert empty["n"] == 0
    assert all(math.isnan(empty[name]) for name in ("value", "low", "high"))
