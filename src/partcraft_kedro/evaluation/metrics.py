"""EMR and CoSim, with intervals; Fréchet and kernel distance."""

import numpy as np

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


def bootstrap(values: np.ndarray, resamples: int, seed: int) -> dict[str, float | int]:
    """The mean of per-picture values with its 95% percentile bootstrap interval (Efron 1979): value, low, high, n."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    rng = numpy_generator(seed, "bootstrap")
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to features (n, d) (Heusel et al. 2017), by torchmetrics."""
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Features(torch.nn.Identity):
        num_features = real.shape[1]

    metric = FrechetInceptionDistance(feature=Features())
    metric.update(torch.from_numpy(real).float(), real=True)
    metric.update(torch.from_numpy(generated).float(), real=False)
    return float(metric.compute())


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Unbiased squared MMD between features (n, d) under the kernel (x·y/d + 1)³ (Bińkowski et al. 2018).

    Over all features at once: torchmetrics compares random subsets of equal size, drawn from a global state.
    """
    x, y = real.astype(np.float64), generated.astype(np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(of_same: np.ndarray) -> float:
        return (of_same.sum() - np.trace(of_same)) / (len(of_same) * (len(of_same) - 1))

    return float(mean_of_pairs(kernel(x, x)) + mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean())
