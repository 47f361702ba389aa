"""The pictures of a run: part maps with codes, reconstructions, compositions, curves, scores."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from partcraft_kedro.evaluation.measures import MEASURES, names_with

# Background first; distinct in print and for colour-blind eyes (after Okabe & Ito).
_COLOURS = ("#3c3c3c", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#999999")

_CELL = 92  # pixels of a crop on a sheet of variants, its margin included


def part_colours(count: int) -> list[str]:
    """One colour for each of `count` labels, repeated when they run out."""
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def draw_part_maps(pictures: np.ndarray, label_maps: np.ndarray, codes: np.ndarray, names: Sequence[str]) -> Figure:
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
    _bare(axes)
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 9), fontsize=8, frameon=False)
    figure.suptitle("Discovered parts and their codes [background, part 1, …]", fontsize=11)
    return figure


def crop_to(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square around a part: (side, side, 3) and a non-empty mask (grid, grid) → (s, s, 3), a patch of margin."""
    side, patch = len(picture), len(picture) / len(mask)  # a grid of 37 divides no usual picture
    rows, columns = np.nonzero(mask)
    size = round(patch * (max(np.ptp(rows), np.ptp(columns)) + 3))
    corners = [int((indices.min() + indices.max() + 1) * patch / 2 - size / 2) for indices in (rows, columns)]
    top, left = (min(max(corner, 0), max(side - size, 0)) for corner in corners)
    return picture[top : top + size, left : left + size]


def draw_variants(sheets: list[tuple[str, list[tuple[str, list[np.ndarray]]]]], crops: int) -> Figure:
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
                canvas[r * _CELL : r * _CELL + size, c * _CELL : c * _CELL + size] = shrunk
        axis.imshow(canvas)
        axis.set_title(name, fontsize=11)
    _bare(axes)
    for axis, (_, variants) in zip(axes.flat, sheets, strict=False):
        axis.set_yticks([(r + 0.5) * _CELL for r in range(len(variants))], [token for token, _ in variants], fontsize=8)
        axis.tick_params(length=0)
    return figure


def draw_reconstructions(real: np.ndarray, generated: np.ndarray, scores: pd.DataFrame) -> Figure:
    """Each original above its reconstruction, with the picture's scores of codes."""
    columns = len(real)
    figure = Figure(figsize=(1.5 * columns, 3.8), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for i, row in enumerate(scores.to_dict("records")):
        axes[0, i].imshow(real[i])
        axes[1, i].imshow(generated[i])
        captions = [MEASURES[name].caption(row) for name in names_with(of_codes=True)]
        axes[1, i].set_xlabel("\n".join(captions), fontsize=8)
    axes[0, 0].set_ylabel("original", fontsize=9)
    axes[1, 0].set_ylabel("generated", fontsize=9)
    _bare(axes)
    figure.suptitle("Reconstructions: the code of the original is all that the model is told", fontsize=11)
    return figure


def draw_compositions(
    sources: list[list[np.ndarray]],
    swapped: list[list[str]],
    asked: list[np.ndarray] | None,
    generated: np.ndarray,
    scores: pd.DataFrame,
) -> Figure:
    """Each row: the base, the pictures that lend a part (named), what was asked for where that is known, and the
    composition."""
    if not sources:
        return _say("No compositions of several pictures were made.")
    lent = max(map(len, sources))
    columns = lent + 1 + bool(asked)
    figure = Figure(figsize=(1.7 * columns, 2.0 * len(sources)), layout="constrained")
    axes = figure.subplots(len(sources), columns, squeeze=False)
    for r, row in enumerate(scores.to_dict("records")):
        labels = ["base", *(f"+ {part}" for part in swapped[r])]
        cells = [*zip(sources[r], labels, strict=True), *[None] * (lent - len(sources[r]))]
        cells += [(asked[r], "asked for")] if asked else []
        captions = [MEASURES[name].caption(row) for name in names_with(per_picture=True, headline=True)]
        cells.append((generated[r], ", ".join(["composed", *captions])))
        for axis, cell in zip(axes[r], cells, strict=True):
            if cell is None:
                axis.set_visible(False)
            else:
                axis.imshow(cell[0])
                axis.set_xlabel(cell[1], fontsize=9, parse_math=False)
    _bare(axes)
    figure.suptitle("Compositions: parts of several pictures in one", fontsize=11)
    return figure


def draw_transfers(sources: list[np.ndarray], made: np.ndarray, sets: Sequence[str]) -> Figure:
    """Each row: two pictures, then the first with parts of the second.

    sources: pairs, (2, h, w, 3) each; made: (pairs, sets, h, w, 3); sets: names of what is transferred.
    """
    if not sources:
        return _say("No transfers were made: see generate.transfers and generate.transferred.")
    columns = 2 + len(sets)
    figure = Figure(figsize=(1.5 * columns, 1.5 * len(sources) + 0.6), layout="constrained")
    axes = figure.subplots(len(sources), columns, squeeze=False)
    for r, (pair, row) in enumerate(zip(sources, made, strict=True)):
        for axis, picture in zip(axes[r], [*pair, *row], strict=True):
            axis.imshow(picture)
    for axis, title in zip(axes[0], ["A", "B", *(f"A with {names} of B" for names in sets)], strict=True):
        axis.set_title(fill(title, 18), fontsize=9, parse_math=False)
    _bare(axes)
    return figure


def draw_losses(history: pd.DataFrame) -> Figure:
    """The training curves."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    titles = {
        "loss_ldm": "diffusion loss",
        "loss_attention": "attention loss",
        "attention_inside": "attention inside the part's mask",
    }
    for axis, (column, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        axis.plot(history["step"], history[column], color=_COLOURS[7])
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    return figure


def draw_scores(table: pd.DataFrame) -> Figure:
    """The measures of pictures by task, with 95% intervals, between floor and ceiling.

    table: the score table's rows that have an interval.
    """
    measures = [MEASURES[name] for name in dict.fromkeys(table["measure"])]
    if not measures:
        return _say("No picture could be scored: no part shows in any.")
    figure = Figure(figsize=(4 * len(measures), 3.4), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        rows = table[table["measure"] == measure.name].reset_index(drop=True)
        x = np.arange(len(rows))
        errors = np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]])
        axis.bar(x, rows["value"], yerr=errors, color=_COLOURS[2], capsize=3, label="generated")
        axis.scatter(x, rows["ceiling"].astype(float), marker="_", s=500, color=_COLOURS[3], label="ceiling")
        axis.scatter(x, rows["floor"].astype(float), marker="_", s=500, color=_COLOURS[5], label="floor")
        axis.set_xticks(x, rows["task"], rotation=30, ha="right", fontsize=8)
        axis.set_title(measure.title)
        if measure.bounded:
            axis.set_ylim(0, 1.05)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False, markerscale=0.4)
    return figure


def _say(text: str) -> Figure:
    figure = Figure(figsize=(5, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def _bare(axes: np.ndarray) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
