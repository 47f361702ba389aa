"""Figures of discovered parts."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from partcraft_kedro.figure_style import bare, part_colours

_CELL = 92  # pixels of a crop on a sheet of variants, its margin included


def part_maps_figure(pictures: np.ndarray, label_maps: np.ndarray, codes: np.ndarray, names: Sequence[str]) -> Figure:
    """The paper's Fig. 1: each picture, its part map, and its code. names: of the labels, background first."""
    columns = len(pictures)
    figure = Figure(figsize=(1.9 * columns, 5.0), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    colours = part_colours(len(names))
    for i in range(columns):
        axes[0, i].imshow(pictures[i])
        axes[1, i].imshow(label_maps[i], cmap=ListedColormap(colours), vmin=-0.5, vmax=len(names) - 0.5)
        code = ", ".join("–" if k < 0 else str(k) for k in codes[i])
        axes[1, i].set_xlabel(fill(f"[{code}]", 24), fontsize=8)
    bare(axes)
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 9), fontsize=8, frameon=False)
    figure.suptitle("Discovered parts and their codes [background, part 1, …]", fontsize=11)
    return figure


def variants_figure(sheets: list[tuple[str, list[tuple[str, list[np.ndarray]]]]], crops: int) -> Figure:
    """For each part a block with its name; for each variant a row with its token and up to `crops` crops."""
    across = min(3, len(sheets))
    down = -(-len(sheets) // across)
    rows = max(1, *(len(variants) for _, variants in sheets))
    figure = Figure(figsize=(across * (0.8 * crops + 0.8), down * (0.8 * rows + 0.5)), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for axis, (name, variants) in zip(axes.flat, sheets, strict=False):
        # One picture a block: an axis for each crop would take matplotlib ten seconds to lay out.
        canvas = np.full((rows * _CELL, crops * _CELL, 3), 255, np.uint8)
        for r, (_, pictures) in enumerate(variants):
            for c, picture in enumerate(pictures):
                size = _CELL - 4
                shrunk = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
                canvas[r * _CELL : r * _CELL + size, c * _CELL : c * _CELL + size] = np.asarray(shrunk)
        axis.imshow(canvas)
        axis.set_title(name, fontsize=11)
    bare(axes)
    for axis, (_, variants) in zip(axes.flat, sheets, strict=False):
        axis.set_yticks([(r + 0.5) * _CELL for r in range(len(variants))], [token for token, _ in variants], fontsize=8)
        axis.tick_params(length=0)
    return figure
