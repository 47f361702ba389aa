from types import SimpleNamespace

import numpy as np
import pytest
import torch

GRID, PARTS, VARIANTS = 8, 3, 3


def _labels(pictures, rng):
    """A frame of background around a 6×6 square whose three strips, in random order, are the parts."""
    labels = np.zeros((pictures, GRID, GRID), np.uint8)
    for picture in labels:
        picture[1:-1, 1:-1] = np.repeat(rng.permutation(PARTS) + 1, 2)
    return labels


@pytest.fixture
def plant():
    """Make features whose scene, parts and variants are orthogonal directions, and the truth behind them.

    The foreground is larger than the background: 36 patches against 28.
    """

    def make(pictures=48, seed=0, change=lambda labels: None):
        rng = np.random.default_rng(seed)
        labels = _labels(pictures, rng)
        change(labels)
        codes = rng.integers(0, VARIANTS, (pictures, PARTS + 1))
        axes = np.eye(2 + PARTS + (PARTS + 1) * VARIANTS, dtype=np.float32)
        scene = axes[(labels > 0).astype(int)]
        part = np.where(labels[..., None] > 0, axes[1 + labels], 0)
        variant = axes[2 + PARTS + labels * VARIANTS + codes[np.arange(pictures)[:, None, None], labels]]
        features = 2 * scene + part + 0.4 * variant + 0.02 * rng.standard_normal(scene.shape)
        shown = np.stack([(labels == m).any((1, 2)) for m in range(PARTS + 1)], axis=1)
        return SimpleNamespace(
            features=torch.from_numpy(features.reshape(pictures, GRID * GRID, -1)).float(),
            labels=labels,
            codes=np.where(shown, codes, -1),
        )

    return make
