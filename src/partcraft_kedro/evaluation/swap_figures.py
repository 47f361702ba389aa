"""Figures of what became of parts: what a swap changed, and where tokens looked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from partcraft_kedro.figure_style import (
    COLOURS,
    HEIGHT,
    LEGEND,
    WIDTH,
    blocks,
    figure_of_words,
    legend_of_parts,
    new_figure,
    outlined,
    picture_at,
    text_at,
)

MOST_LEAKS = 8
"""Pairs of pictures beside the table of leakage."""
_TABLE = 400  # pixels of the table's side
_NAMES = 96  # pixels of the names left of it and over it
_CAPTION = 28  # pixels under a pair of pictures
_LINE = 16  # pixels of a line under pictures
_SHARES = LinearSegmentedColormap.from_list("shares", ["#f4f4f4", COLOURS[5]])


@dataclass(frozen=True)
class Leak:
    """A picture and what a swap made of it, of the same noise. swapped, changed: names of parts."""

    before: np.ndarray
    after: np.ndarray
    swapped: Sequence[str]
    changed: Sequence[str]


def leakage_figure(shares: np.ndarray, counts: np.ndarray, names: Sequence[str], leaks: Sequence[Leak]) -> Figure:
    """In how many pictures a swap of one part, a row, changed each other, a column; and those in which most changed.

    shares: (M+1, M+1), NaN where nothing was measured; counts: of how many pictures; names: of the labels.
    """
    if not counts.any():
        return figure_of_words("No part was swapped alone: see generate.compositions and generate.max_sources.")
    figure = new_figure("Leakage: what else changed when one part was swapped, the noise being the same")
    top = (HEIGHT - _TABLE + _NAMES) / 2
    axis = picture_at(figure, np.ma.masked_invalid(shares), _NAMES, top, _TABLE)
    axis.images[0].set(cmap=_SHARES, clim=(0, 1))
    cell, small = _TABLE / len(names), {"fontsize": 8.5 if len(names) < 10 else 5}
    for row, column in zip(*np.nonzero(counts), strict=True):
        place = _NAMES + (column + 0.5) * cell, top + (row + 0.5) * cell
        text_at(figure, f"{shares[row, column]:.0%}", *place, ha="center", va="center", **small)
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        text_at(figure, name, _NAMES - 6, top + middle, ha="right", va="center", **small)
        text_at(figure, name, _NAMES + middle, top - 4, ha="left", va="bottom", rotation=40, **small)
    fewest, most = counts[counts > 0].min(), counts.max()
    told = f"row: what was swapped; column: what changed with it,\nas a share of {fewest} to {most} pictures"
    text_at(figure, told, _NAMES, top + _TABLE + 8, fontsize=8.5)
    _draw_leaks(figure, leaks, _NAMES + _TABLE + 40)
    return figure


def _draw_leaks(figure: Figure, leaks: Sequence[Leak], left: int) -> None:
    """Pairs of pictures, two beside each other, right of `left`."""
    room = 34, HEIGHT - 34  # pixels: the top, and what is below it
    rows = max(1, -(-len(leaks) // 2))
    side = int(min((WIDTH - left) / 4 - 8, room[1] / max(rows, 4) - _CAPTION - 6))
    height = side + _CAPTION + 6
    top = room[0] + (room[1] - rows * height) / 2
    for i, leak in enumerate(leaks):
        x, y = left + i % 2 * (WIDTH - left) / 2, top + i // 2 * height
        picture_at(figure, leak.before, x, y, side)
        picture_at(figure, leak.after, x + side + 2, y, side)
        told = f"another {', '.join(leak.swapped)}\nalso changed: {', '.join(leak.changed)}"
        text_at(figure, told, x + side + 1, y + side + 2, fontsize=7, ha="center")


@dataclass(frozen=True)
class Regions:
    """A picture of one base. base, made: (h, w, 3); mask, looked, found: label maps (grid, grid); told: in words."""

    base: np.ndarray
    made: np.ndarray
    mask: np.ndarray
    looked: np.ndarray
    found: np.ndarray
    told: str


def regions_figure(examples: Sequence[Regions], names: Sequence[str]) -> Figure:
    """Each base with its masks, and twice the picture made of it: where its tokens looked, and where parts were found.

    names: of the labels, background first.
    """
    figure = new_figure("A base with its parts' masks; made of it: where each token looked, where its part was found")
    side, places = blocks(len(examples), wide=3, below=_LINE, bottom=LEGEND)
    for (x, y), example in zip(places, examples, strict=True):
        shown = (example.base, example.mask), (example.made, example.looked), (example.made, example.found)
        for i, (picture, labels) in enumerate(shown):
            outlined(figure, picture, labels, len(names), x + i * side, y, side - 3)
        text_at(figure, example.told, x + 1.5 * side, y + side + 1, fontsize=7.5, ha="center")
    legend_of_parts(figure, names)
    return figure
