import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from partcraft_kedro.evaluation.metrics import (
    bootstrap,
    both_absent,
    cosine_similarity,
    exact_matching_rate,
    frechet_distance,
    kernel_distance,
)

A = -1  # absent
INTENDED = np.array([[4, 2, 5, A], [4, A, 5, 0], [1, 1, 1, 1], [A, A, A, A]])
GENERATED = np.array([[4, 3, 5, A], [4, 2, A, 1], [1, 1, 1, 1], [A, A, A, A]])


def features(count, seed, width=6):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((count, width)) @ rng.uniform(-1, 1, (width, width)) + rng.uniform(-1, 1, width)
    ).astype(np.float32)


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


def test_bootstrap_of_one_value_and_of_none():
    assert bootstrap(np.array([0.25]), 10, 0) == {"value": 0.25, "low": 0.25, "high": 0.25, "n": 1}
    empty = bootstrap(np.array([np.nan]), 10, 0)
    assert empty["n"] == 0
    assert all(math.isnan(empty[name]) for name in ("value", "low", "high"))


def test_frechet_distance_is_the_closed_formula():
    real, generated = features(300, 0), features(200, 1)
    x, y = real.astype(np.float64), generated.astype(np.float64)
    of_x, of_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    means = np.square(x.mean(0) - y.mean(0)).sum()
    expected = means + np.trace(of_x + of_y - 2 * sqrtm(of_x @ of_y).real)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_a_shift_is_its_square():
    real = features(300, 0)
    shift = np.array([1, 2, 0, 0, 0, 0], np.float32)
    assert frechet_distance(real, real + shift) == pytest.approx(5, rel=1e-3)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-3)


def unbiased_mmd(x, y):
    """Squared MMD with the kernel (x·y/d + 1)³, the diagonals left out."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()


@pytest.mark.parametrize("counts", [(80, 80), (120, 80), (80, 120)])
def test_kernel_distance_is_the_unbiased_mmd_of_all_features(counts):
    real, generated = features(counts[0], 0), features(counts[1], 1)
    assert kernel_distance(real, generated) == pytest.approx(unbiased_mmd(real, generated), rel=1e-3)


def test_kernel_distance_draws_nothing_from_the_global_random_state():
    before = torch.get_rng_state()
    kernel_distance(features(30, 0), features(20, 1))
    assert torch.equal(torch.get_rng_state(), before)
