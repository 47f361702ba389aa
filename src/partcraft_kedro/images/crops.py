"""Parts cut out of pictures."""

import numpy as np
from scipy import ndimage


def typical_crop(picture: np.ndarray, mask: np.ndarray, part: int) -> np.ndarray:
    """A part as it is shown wherever a variant is chosen by looking: its largest piece, without stray patches; of the
    background (0), which surrounds everything, a square that holds no part."""
    return crop_to(picture, largest_piece(mask)) if part else crop_within(picture, mask)


def crop_to(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square around a part: (side, side, 3) and a non-empty mask (grid, grid) → (s, s, 3), a patch of margin."""
    side, patch = len(picture), len(picture) / len(mask)  # a grid of 37 divides no usual picture
    rows, columns = np.nonzero(mask)
    size = round(patch * (max(np.ptp(rows), np.ptp(columns)) + 3))
    corners = [int((indices.min() + indices.max() + 1) * patch / 2 - size / 2) for indices in (rows, columns)]
    top, left = (min(max(corner, 0), max(side - size, 0)) for corner in corners)
    return picture[top : top + size, left : left + size]


def crop_within(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The largest square with nothing else in it: of a background, which surrounds all that is not it."""
    patch = len(picture) / len(mask)
    row, column, depth = deepest(mask)
    top, bottom, left, right = (
        round(edge * patch) for edge in (row - depth + 1, row + depth, column - depth + 1, column + depth)
    )
    return picture[top:bottom, left:right]


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of a non-empty mask, corners touching."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return pieces == np.bincount(pieces[pieces > 0]).argmax()


def deepest(mask: np.ndarray) -> tuple[int, int, int]:
    """The patch of a non-empty mask that is furthest from all that is not it, and how far that is: row, column, patches
    along rows, columns or diagonals, 1 at the edge."""
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column), int(depth[row, column])
