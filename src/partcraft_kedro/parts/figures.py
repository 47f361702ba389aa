"""Figures of discovered parts."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from partcraft_kedro.figure_style import (
    HEIGHT,
    LEGEND,
    WIDTH,
    blocks,
    chip_at,
    legend_of_parts,
    new_figure,
    outlined,
    part_colours,
    picture_at,
    text_at,
)
from partcraft_kedro.images.crops import deepest, largest_piece

_CODE = 26  # pixels of a code under its picture
_WORDS = 20  # pixels of a line under a picture
_HEADING = 26  # pixels above a part's variants
_TOKENS = 102  # pixels of what is told of a variant beside its crops


def part_maps_figure(pictures: np.ndarray, label_maps: np.ndarray, codes: np.ndarray, names: Sequence[str]) -> Figure:
    """The paper's Fig. 1: each picture, its parts outlined and named in it, and its code, a box for each part.

    names: of the labels, background first.
    """
    figure = new_figure("Discovered parts; below, the code: which variant each of them is")
    side, places = blocks(len(pictures), wide=1, below=_CODE, bottom=LEGEND)
    colours = part_colours(len(names))
    for (x, y), picture, labels, code in zip(places, pictures, label_maps, codes, strict=True):
        outlined(figure, picture, labels, len(names), x, y, side)
        _name_parts(figure, (x, y, side), labels, names)
        step = side / len(code)
        for part, variant in enumerate(code):
            text = "–" if variant < 0 else str(variant)
            chip_at(figure, text, x + (part + 0.5) * step, y + side + _CODE / 2, colours[part], fontsize=8)
    legend_of_parts(figure, names)
    return figure


def _name_parts(figure: Figure, place: tuple[int, int, int], labels: np.ndarray, names: Sequence[str]) -> None:
    """In a picture at (x, y, side) the name of each part where it is widest."""
    x, y, side = place
    patch = side / len(labels)
    for label, colour in list(enumerate(part_colours(len(names))))[1:]:
        if (labels == label).any():
            row, column, _ = deepest(largest_piece(labels == label))
            middle = (x + (column + 0.5) * patch, y + (row + 0.5) * patch)
            chip_at(figure, names[label], *middle, colour, fontsize=6.5)


def worst_figure(
    rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, np.ndarray, str]]]], names: Sequence[str]
) -> Figure:
    """Where discovery fails: rows of pictures with their parts outlined, each row with its heading.

    rows: heading, and of each picture the picture, its label map and what is told of it; names: as `part_maps_figure`.
    """
    figure = new_figure("Pictures to look at first: where discovery is likeliest to have failed")
    top, below = 34, HEIGHT - LEGEND
    height = (below - top) // max(1, len(rows))
    for number, (heading, pictures) in enumerate(rows):
        y = top + number * height
        side = min(height - _HEADING - _WORDS, WIDTH // max(1, len(pictures)) - 6)
        text_at(figure, heading, WIDTH / 2, y + _HEADING / 2, fontsize=9.5, ha="center", va="center", weight="bold")
        left = (WIDTH - len(pictures) * (side + 6)) / 2 + 3
        for i, (picture, labels, told) in enumerate(pictures):
            x = left + i * (side + 6)
            outlined(figure, picture, labels, len(names), x, y + _HEADING, side)
            text_at(figure, told, x + side / 2, y + _HEADING + side + 2, fontsize=7.5, ha="center")
    legend_of_parts(figure, names)
    return figure


def variants_figure(sheets: list[tuple[str, list[tuple[str, list[np.ndarray]]]]], crops: int) -> Figure:
    """For each part a block with its name; for each variant a row with what is told of it and up to `crops` crops."""
    figure = new_figure(
        "The commonest variants of each part: how many pictures, how alike they are; from the most typical to the least"
    )
    across = min(3, len(sheets))
    down = -(-len(sheets) // across)
    rows = max(1, *(len(variants) for _, variants in sheets))
    top = HEIGHT - down * ((HEIGHT - 34) // down)
    width, height = WIDTH // across, (HEIGHT - top) // down
    cell = min((width - _TOKENS - 12) // crops, (height - _HEADING - 4) // rows)
    for number, (name, variants) in enumerate(sheets):
        x, y = number % across * width, top + number // across * height
        text_at(figure, name, x + _TOKENS, y + _HEADING / 2, fontsize=10, va="center", weight="bold")
        # One picture a block: matplotlib takes ten seconds for as many axes as there are crops.
        canvas = np.full((max(rows, crops) * cell, max(rows, crops) * cell, 3), 255, np.uint8)
        for r, (told, pictures) in enumerate(variants):
            middle = y + _HEADING + (r + 0.5) * cell
            text_at(figure, told, x + _TOKENS - 8, middle, fontsize=6.5, ha="right", va="center")
            for c, picture in enumerate(pictures):
                shrunk = Image.fromarray(picture).resize((cell - 4, cell - 4), Image.Resampling.BICUBIC)
                canvas[r * cell : (r + 1) * cell - 4, c * cell : (c + 1) * cell - 4] = np.asarray(shrunk)
        picture_at(figure, canvas, x + _TOKENS, y + _HEADING, len(canvas))
    return figure
