"""Figures of generated pictures and their scores."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.evaluation.measures import MEASURES, names_with
from partcraft_kedro.figure_style import COLOURS, bare, figure_of_words


def reconstructions_figure(real: np.ndarray, generated: np.ndarray, scores: pd.DataFrame) -> Figure:
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
    bare(axes)
    figure.suptitle("Reconstructions: the code of the original is all that the model is told", fontsize=11)
    return figure


def compositions_figure(
    sources: list[list[np.ndarray]],
    swapped: list[list[str]],
    asked: list[np.ndarray] | None,
    generated: np.ndarray,
    scores: pd.DataFrame,
) -> Figure:
    """Each row: the base, the pictures that lend a part (named), what was asked for where that is known, and the
    composition."""
    if not sources:
        return figure_of_words("No compositions of several pictures were made.")
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
    bare(axes)
    figure.suptitle("Compositions: parts of several pictures in one", fontsize=11)
    return figure


def transfers_figure(sources: list[np.ndarray], made: np.ndarray, sets: Sequence[str]) -> Figure:
    """Each row: two pictures, then the first with parts of the second.

    sources: pairs, (2, h, w, 3) each; made: (pairs, sets, h, w, 3); sets: names of what is transferred.
    """
    if not sources:
        return figure_of_words("No transfers were made: see generate.transfers and generate.transferred.")
    columns = 2 + len(sets)
    figure = Figure(figsize=(1.5 * columns, 1.5 * len(sources) + 0.6), layout="constrained")
    axes = figure.subplots(len(sources), columns, squeeze=False)
    for r, (pair, row) in enumerate(zip(sources, made, strict=True)):
        for axis, picture in zip(axes[r], [*pair, *row], strict=True):
            axis.imshow(picture)
    for axis, title in zip(axes[0], ["A", "B", *(f"A with {names} of B" for names in sets)], strict=True):
        axis.set_title(fill(title, 18), fontsize=9, parse_math=False)
    bare(axes)
    return figure


def losses_figure(history: pd.DataFrame) -> Figure:
    """The training curves."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    titles = {
        "loss_ldm": "diffusion loss",
        "loss_attention": "attention loss",
        "attention_inside": "attention inside the part's mask",
    }
    for axis, (column, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        axis.plot(history["step"], history[column], color=COLOURS[7])
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    return figure


def scores_figure(table: pd.DataFrame) -> Figure:
    """The measures of pictures by task, with 95% intervals, between floor and ceiling.

    table: the score table's rows that have an interval.
    """
    measures = [MEASURES[name] for name in dict.fromkeys(table["measure"])]
    if not measures:
        return figure_of_words("No picture could be scored: no part shows in any.")
    figure = Figure(figsize=(4 * len(measures), 3.4), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        rows = table[table["measure"] == measure.name].reset_index(drop=True)
        x = np.arange(len(rows))
        errors = np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]])
        axis.bar(x, rows["value"], yerr=errors, color=COLOURS[2], capsize=3, label="generated")
        axis.scatter(x, rows["ceiling"].astype(float), marker="_", s=500, color=COLOURS[3], label="ceiling")
        axis.scatter(x, rows["floor"].astype(float), marker="_", s=500, color=COLOURS[5], label="floor")
        axis.set_xticks(x, rows["task"], rotation=30, ha="right", fontsize=8)
        axis.set_title(measure.title)
        if measure.bounded:
            axis.set_ylim(0, 1.05)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False, markerscale=0.4)
    return figure
