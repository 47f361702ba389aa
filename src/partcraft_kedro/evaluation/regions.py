"""Three regions of a part: where its token looked, where it was found in the picture, and its mask in the base.

Each as a label map, (n, grid, grid) uint8, 0 the background: a place belongs to the token that looks at it most, as in
Eq. 5, which divides attention by its sum over parts.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from partcraft_kedro.files import read_file


def overlap(first: np.ndarray, second: np.ndarray, labels: int) -> np.ndarray:
    """Intersection over union of each part's regions in two stacks of label maps of one grid, (n, labels) float.

    NaN where a part is in neither, and for the background, which is large and overlaps with everything.
    """
    of_parts = np.full((len(first), labels), np.nan)
    for part in range(1, labels):
        one, other = first == part, second == part
        union = (one | other).sum((1, 2))
        shown = union > 0
        of_parts[shown, part] = (one & other).sum((1, 2))[shown] / union[shown]
    return of_parts


def load_looked(paths: Iterable[Path], grid: int) -> np.ndarray:
    """Which token looked most at each place, as `write_pictures` left it, brought to another grid by its nearest place.

    Raises UserError if one is missing or damaged.
    """
    maps = []
    for path in paths:
        looked = read_file(path, lambda path: np.asarray(Image.open(path)))
        place = ((np.arange(grid) + 0.5) * len(looked) / grid).astype(int)
        maps.append(looked[np.ix_(place, place)])
    return np.stack(maps)
