"""Discovered parts against true masks."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def patch_labels(masks: np.ndarray, grid: int) -> np.ndarray:
    """The commonest label of each patch: (n, h, w) → (n, grid, grid) uint8."""
    first = -(-np.arange(grid) * masks.shape[1] // grid)  # each patch's first pixel, whether or not the grid divides
    counts = [
        np.add.reduceat(np.add.reduceat(masks == label, first, 1, int), first, 2) for label in range(masks.max() + 1)
    ]
    return np.stack(counts).argmax(0).astype(np.uint8)


def overlap(discovered: np.ndarray, true: np.ndarray, discovered_count: int, true_count: int) -> np.ndarray:
    """The intersection over union of each discovered with each true label, (discovered_count, true_count)."""
    pairs = discovered.ravel().astype(int) * true_count + true.ravel()
    together = np.bincount(pairs, minlength=discovered_count * true_count).reshape(discovered_count, true_count)
    union = together.sum(1, keepdims=True) + together.sum(0, keepdims=True) - together
    return together / np.maximum(union, 1)


def match_labels(overlaps: np.ndarray) -> dict[int, int]:
    """Discovered label → true label: the one-to-one matching of largest overlap (Kuhn 1955)."""
    rows, columns = linear_sum_assignment(-overlaps)
    return dict(zip(rows.tolist(), columns.tolist(), strict=True))


def discovery_scores(overlaps: np.ndarray, discovered: np.ndarray, true_masks: np.ndarray) -> dict:
    """NMI, ARI and mean IoU after matching, at the resolution of the discovered label maps (n, grid, grid).

    overlaps: of these label maps with `patch_labels(true_masks)`; true_masks: (n, h, w).
    `iou_of_labels` lists the IoU of each true label, 0 for one that was not found; `nmi_pixels` compares at the
    masks' own resolution.
    """
    true = patch_labels(true_masks, discovered.shape[1])
    of_labels = np.zeros(overlaps.shape[1])
    for found, real in match_labels(overlaps).items():
        of_labels[real] = overlaps[found, real]
    patch = np.arange(true_masks.shape[1]) * discovered.shape[1] // true_masks.shape[1]  # of each pixel
    pixels = discovered[:, patch][:, :, patch]
    return {
        "nmi": float(normalized_mutual_info_score(true.ravel(), discovered.ravel())),
        "ari": float(adjusted_rand_score(true.ravel(), discovered.ravel())),
        "iou": float(of_labels.mean()),
        "iou_of_labels": of_labels.tolist(),
        "nmi_pixels": float(normalized_mutual_info_score(true_masks.ravel(), pixels.ravel())),
    }
