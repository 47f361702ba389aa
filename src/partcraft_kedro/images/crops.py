"""Parts cut out of pictures."""

import numpy as np


def crop_to(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square around a part: (side, side, 3) and a non-empty mask (grid, grid) → (s, s, 3), a patch of margin."""
    side, patch = len(picture), len(picture) / len(mask)  # a grid of 37 divides no usual picture
    rows, columns = np.nonzero(mask)
    size = round(patch * (max(np.ptp(rows), np.ptp(columns)) + 3))
    corners = [int((indices.min() + indices.max() + 1) * patch / 2 - size / 2) for indices in (rows, columns)]
    top, left = (min(max(corner, 0), max(side - size, 0)) for corner in corners)
    return picture[top : top + size, left : left + size]
