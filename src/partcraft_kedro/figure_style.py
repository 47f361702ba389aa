"""What figures have in common: size, colours, where pictures stand, and what to show where there is nothing to show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

# Distinct in print and for colour-blind eyes (after Okabe & Ito).
COLOURS = ("#3c3c3c", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#999999")
# Of labels, background first: apart for normal eyes, deuteranopes and protanopes, by lightness and from blue to yellow.
_PART_COLOURS = ("#3c3c3c", "#e69f00", "#2a35d8", "#7df0f0", "#3399ff", "#ff8a8a", "#5a2d8a", "#0c6b14", "#f6f06a")
DPI = 110  # as the catalog saves figures
WIDTH, HEIGHT = 1188, 792
"""Pixels of every figure: 3:2, which kedro-viz neither stretches nor crops."""
LEGEND = 30
"""Pixels of the legend of parts at the bottom."""
_TITLE = 34  # pixels at the top
_ENTRY = 130  # pixels from one name of the legend to the next
_GAP = 8  # pixels between pictures


def part_colours(count: int) -> list[str]:
    """One colour for each of `count` labels, repeated when they run out."""
    return [_PART_COLOURS[i % len(_PART_COLOURS)] for i in range(count)]


def new_figure(title: str = "", **options: Any) -> Figure:
    """A figure of the size that all have, with a title."""
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, **options)
    if title:
        text_at(figure, title, WIDTH / 2, _TITLE / 2, fontsize=11, ha="center", va="center")
    return figure


def figure_of_words(text: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = new_figure()
    text_at(figure, text, WIDTH / 2, HEIGHT / 2, fontsize=14, ha="center", va="center")
    return figure


def blocks(count: int, *, wide: float, below: int, bottom: int = 0) -> tuple[int, list[tuple[int, int]]]:
    """Where `count` blocks of square pictures stand, as large as the figure allows.

    Returns the side of a picture in pixels, and each block's left upper corner (x, y).

    wide: pictures beside each other in a block; below: pixels of text under them; bottom: pixels kept free under all.
    """
    room = HEIGHT - _TITLE - bottom

    def side_of(columns: int) -> float:
        rows = -(-count // columns)
        return min((WIDTH / columns - _GAP) / wide, room / rows - below - _GAP)

    columns = max(range(1, count + 1), key=side_of)
    side, rows = int(side_of(columns)), -(-count // columns)
    width, height = WIDTH / columns, min(room / rows, side + below + 4 * _GAP)
    inset = (width - wide * side) / 2
    top = _TITLE + (room - rows * height) / 2
    return side, [(round(i % columns * width + inset), round(top + i // columns * height)) for i in range(count)]


def picture_at(figure: Figure, picture: np.ndarray, x: float, y: float, side: float) -> Axes:
    """A square picture (h, w, 3), its left upper corner at pixel (x, y)."""
    axis = figure.add_axes((x / WIDTH, 1 - (y + side) / HEIGHT, side / WIDTH, side / HEIGHT))
    axis.imshow(picture, aspect="auto")
    axis.set_axis_off()
    return axis


def pictures_figure(pictures: Sequence[np.ndarray | Image.Image], titles: Sequence[str], across: int = 8) -> Figure:
    """Square pictures in rows, each below its title; the figure is as large as they need."""
    across = min(across, len(pictures))
    down = -(-len(pictures) // across)
    figure = Figure(figsize=(1.2 * across, 1.4 * down), dpi=DPI, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    bare(axes)
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=7, parse_math=False)
    return figure


def text_at(figure: Figure, text: str, x: float, y: float, **style: Any) -> None:
    """Text at pixel (x, y), its left upper corner unless `style` says otherwise; `$` begins no formula."""
    figure.text(x / WIDTH, 1 - y / HEIGHT, text, **_with(style, va="top", parse_math=False))


def chip_at(figure: Figure, text: str, x: float, y: float, colour: str, **style: Any) -> None:
    """Text in a box of a label's colour around pixel (x, y)."""
    box = {"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"}
    text_at(figure, text, x, y, color=ink_on(colour), bbox=box, **_with(style, ha="center", va="center"))


def legend_of_parts(figure: Figure, names: Sequence[str]) -> None:
    """The labels' names in their colours, in a line at the bottom."""
    entry = min(WIDTH / len(names), _ENTRY)
    for label, (name, colour) in enumerate(zip(names, part_colours(len(names)), strict=True)):
        middle = WIDTH / 2 + (label - (len(names) - 1) / 2) * entry
        chip_at(figure, name, middle, HEIGHT - LEGEND / 2, colour, fontsize=8)


def _with(style: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    return defaults | style


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    return "black" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5 else "white"


def outline(axis: Axes, mask: np.ndarray, colour: str) -> None:
    """A mask (grid, grid) as a line around it, over the picture that the axis shows."""
    height, width = axis.images[0].get_size()
    rows, columns = (
        (np.arange(-1, n + 1) + 0.5) * size / n - 0.5 for n, size in zip(mask.shape, (height, width), strict=True)
    )
    # Closed at the picture's edge, and slightly inside, so that lines of neighbours lie beside each other.
    weight = min(1.8, axis.bbox.width / 80)
    axis.contour(
        np.clip(columns, -0.5, width - 0.5),
        np.clip(rows, -0.5, height - 0.5),
        np.pad(mask.astype(float), 1),
        levels=[0.6],
        colors=[colour],
        linewidths=weight,
    ).set_path_effects([withStroke(linewidth=1.9 * weight, foreground="white")])


def outlined(
    figure: Figure, picture: np.ndarray, labels: np.ndarray, count: int, x: float, y: float, side: float
) -> None:
    """A picture as `picture_at`, each of its parts outlined. labels: (grid, grid), below `count`, 0 the background."""
    axis = picture_at(figure, picture, x, y, side)
    for label, colour in list(enumerate(part_colours(count)))[1:]:
        if (labels == label).any():
            outline(axis, labels == label, colour)


def bare(axes: np.ndarray) -> None:
    """Take ticks and frames away, an array of axes."""
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
