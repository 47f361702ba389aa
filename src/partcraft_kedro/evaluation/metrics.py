"""EMR and CoSim, with intervals."""

import numpy as np
from scipy import stats

from partcraft_kedro.parts.predictor import ABSENT
from partcraft_kedro.randomness import numpy_generator


def exact_matching_rate(codes: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """EMR of each picture (line 25 of Algorithm 1): the share of matching entries, (n,) float.

    codes, generated: (n, M+1). A part absent in both is left out; a part absent in one is a mismatch.
    NaN where nothing is left.
    """
    return _mean_over_parts((codes == generated).astype(float), codes, generated)


def cosine_similarity(
    codes: np.ndarray, generated: np.ndarray, code_centroids: np.ndarray, generated_centroids: np.ndarray
) -> np.ndarray:
    """CoSim of each picture (line 26 of Algorithm 1): the mean cosine of the codes' centroids, (n,) float.

    centroids: (n, M+1, width), of unit length, from `PartPredictor.get_centroids`, zero for absent parts, so
    that a part absent in one scores 0; a part absent in both is left out.
    """
    return _mean_over_parts((code_centroids * generated_centroids).sum(-1), codes, generated)


def both_absent(codes: np.ndarray, generated: np.ndarray) -> int:
    """How many entries were left out of the means because the part is absent in both."""
    return int(((codes == ABSENT) & (generated == ABSENT)).sum())


def _mean_over_parts(scores: np.ndarray, codes: np.ndarray, generated: np.ndarray) -> np.ndarray:
    counted = (codes != ABSENT) | (generated != ABSENT)
    with np.errstate(invalid="ignore"):
        return np.where(counted, scores, 0).sum(1) / counted.sum(1)


def mean_of_known(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)


def bootstrap(
    values: np.ndarray, resamples: int, seed: int, groups: np.ndarray | None = None
) -> dict[str, float | int]:
    """The mean of per-picture values with its 95% percentile bootstrap interval (Efron 1979): value, low, high, n.

    groups: equal for pictures that depend on each other, which are drawn together; none: each is drawn for itself.
    """
    known = ~np.isnan(values)
    groups = np.arange(len(values)) if groups is None else groups
    _, places = np.unique(groups[known], return_inverse=True)
    values, counts = values[known], np.bincount(places)
    sums = np.bincount(places, values)
    low = high = mean = float(values.mean()) if len(values) else float("nan")
    if len(sums) > 1:  # SciPy refuses to resample fewer
        low, high = stats.bootstrap(
            (sums, counts),
            lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
            n_resamples=resamples,
            paired=True,
            method="percentile",
            rng=numpy_generator(seed, "bootstrap"),
        ).confidence_interval
    return {"value": mean, "low": float(low), "high": float(high), "n": len(values)}
