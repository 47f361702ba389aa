"""Figures of generated pictures and their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from partcraft_kedro.evaluation.measures import MEASURES, PART, Measure, names_with
from partcraft_kedro.figure_style import (
    COLOURS,
    blocks,
    figure_of_words,
    new_figure,
    outline,
    picture_at,
    text_at,
)

_LINE = 13  # pixels of a line of small text
_HELD_OUT = "held-out pictures, always with the same noise"
MOST_TRANSFERS = 4
"""Rows of the figure of transfers: more would be too small to see."""


@dataclass(frozen=True)
class Source:
    """A picture that lends parts, (h, w, 3). lent: the outline's colour and the mask (grid, grid) of each."""

    picture: np.ndarray
    label: str
    lent: Sequence[tuple[str, np.ndarray]] = ()

    def draw(self, figure: Figure, x: float, y: float, side: float) -> None:
        axis = picture_at(figure, self.picture, x, y, side)
        for colour, mask in self.lent:
            if mask.any():
                outline(axis, mask, colour)
        text_at(figure, self.label, x + side / 2, y + side + 2, fontsize=7, ha="center")


@dataclass(frozen=True)
class Composition:
    """A composed picture, where it is known (else None) a drawing of what was asked for, and its row of `scores`."""

    sources: Sequence[Source]
    asked: np.ndarray | None
    made: np.ndarray
    scores: Mapping[str, Any]


def reconstructions_figure(real: np.ndarray, generated: np.ndarray, scores: pd.DataFrame) -> Figure:
    """Each original beside its reconstruction, with its prompt and the picture's scores of codes."""
    figure = new_figure("Reconstructions: originals, and what was generated from their prompts alone")
    side, places = blocks(len(real), wide=3, below=0)
    for (x, y), original, made, row in zip(places, real, generated, scores.to_dict("records"), strict=True):
        picture_at(figure, original, x, y, side)
        picture_at(figure, made, x + side + 2, y, side)
        captions = [MEASURES[name].caption(row) for name in names_with(of_codes=True)]
        told = "\n".join([row["sources"][0], fill(row["prompt"], 24), "", *captions])
        text_at(figure, told, x + 2 * side + 12, y + side / 2, fontsize=7.5, va="center", linespacing=1.4)
    return figure


def compositions_figure(compositions: Sequence[Composition]) -> Figure:
    """Each composition in a block: its sources, the lent part outlined, what was asked for where that is known, the
    picture, and the prompt below."""
    if not compositions:
        return figure_of_words("No compositions of several pictures were made.")
    asked = any(composition.asked is not None for composition in compositions)
    figure = new_figure(
        "Compositions: a base with the outlined parts of others; EMR is the share of parts found as asked"
    )
    side, places = blocks(len(compositions), wide=4 if asked else 3, below=3 * _LINE)
    for place, composition in zip(places, compositions, strict=True):
        _draw_composition(figure, composition, *place, side)
    return figure


def _draw_composition(figure: Figure, composition: Composition, x: float, y: float, side: float) -> None:
    """Sources share the width of two pictures."""
    width = 2 * side / max(len(composition.sources), 2)
    for i, source in enumerate(composition.sources):
        source.draw(figure, x + i * width, y + (side - width) / 2, width - 3)
    captions = [MEASURES[name].caption(composition.scores) for name in names_with(per_picture=True, headline=True)]
    cells = [Source(composition.made, ", ".join(["composed", *captions]))]
    if composition.asked is not None:
        cells.insert(0, Source(composition.asked, "asked for"))
    for i, cell in enumerate(cells):
        cell.draw(figure, x + (2 + i) * side + 3, y, side - 3)
    across = (2 + len(cells)) * side
    text_at(figure, composition.scores["prompt"], x + across / 2, y + side + _LINE + 4, fontsize=7, ha="center")


def transfers_figure(pairs: Sequence[tuple[Source, Source]], made: np.ndarray, sets: Sequence[str]) -> Figure:
    """Each row: two pictures, what is lent outlined in the second, then the first with parts of the second.

    made: (pairs, sets, h, w, 3); sets: names of what is transferred.
    """
    if not pairs:
        return figure_of_words("No transfers were made: see generate.transfers and generate.transferred.")
    figure = new_figure("Transfers: what is outlined in B, on A")
    side, places = blocks(len(pairs), wide=2 + len(sets), below=2 * _LINE)
    for (x, y), pair, row in zip(places, pairs, made, strict=True):
        cells = [Source(picture, fill(f"A with {names} of B", 26)) for picture, names in zip(row, sets, strict=True)]
        for i, cell in enumerate([*pair, *cells]):
            cell.draw(figure, x + i * side, y, side - 4)
    return figure


def losses_figure(history: pd.DataFrame) -> Figure:
    """The training curves: every logged value, over them the running mean of ten, and those of held-out pictures."""
    figure = new_figure(layout="constrained")
    titles = {
        "loss_ldm": "diffusion loss",
        "loss_attention": "attention loss",
        "attention_inside": "attention inside the part's mask",
    }
    axes = figure.subplot_mosaic([["loss_ldm"] * 2, ["loss_attention", "attention_inside"]])
    for column, title in titles.items():
        axes[column].plot(history["step"], history[column], color=COLOURS[7], alpha=0.35)
        smooth = history[column].rolling(10, min_periods=1, center=True).mean()
        axes[column].plot(history["step"], smooth, color=COLOURS[7], linewidth=2, label="training")
        if (held_out := f"validation_{column}") in history:
            axes[column].plot(history["step"], history[held_out], color=COLOURS[5], linewidth=2, label=_HELD_OUT)
        axes[column].set(title=title, xlabel="step")
        axes[column].grid(alpha=0.3)
        axes[column].spines[["top", "right"]].set_visible(False)
    axes["loss_ldm"].legend(fontsize=9, frameon=False)
    return figure


def scores_figure(table: pd.DataFrame) -> Figure:
    """The measures of pictures by task, with 95% intervals, between floor and ceiling.

    table: the score table's rows that have an interval.
    """
    plain = [measure.name for measure in MEASURES.values() if not measure.of_swaps and not measure.of_regions]
    rows = table[table["measure"].isin(plain) & ~table["task"].str.startswith(PART)]
    if rows.empty:
        return figure_of_words("No picture could be scored: no part shows in any.")
    return _figure_of_measures(rows, columns=2 if rows["measure"].nunique() == 4 else 3)


def swaps_figure(table: pd.DataFrame) -> Figure:
    """Transfer, preservation and leakage by task and by part, as `scores_figure`."""
    rows = table[table["measure"].isin(names_with(of_swaps=True))]
    if rows.empty:
        return figure_of_words("No part was swapped: see generate.compositions and generate.max_sources.")
    return _figure_of_measures(rows, columns=3)


def _figure_of_measures(table: pd.DataFrame, columns: int) -> Figure:
    measures = [measure for measure in MEASURES.values() if measure.name in set(table["measure"])]
    tasks = list(dict.fromkeys(table["task"]))[::-1]  # the first on top
    figure = new_figure(layout="constrained")
    columns = min(columns, len(measures))
    axes = figure.subplots(-(-len(measures) // columns), columns, squeeze=False, sharey=True).ravel()
    for axis, measure in zip(axes, measures, strict=False):
        _draw_between(axis, measure, table[table["measure"] == measure.name], tasks)
    for axis in axes[len(measures) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure


def _draw_between(axis: Axes, measure: Measure, rows: pd.DataFrame, tasks: list[str]) -> None:
    """One measure: a row for each task, a bar from floor to ceiling, and the value with its interval on it.

    The axis is as wide as what is on it: of a floor of .88 and a ceiling of 1 the way between them is what counts.
    """
    y = rows["task"].map(tasks.index).to_numpy()
    axis.use_sticky_edges = False  # room beside the outermost mark
    floor, ceiling = rows["floor"].astype(float), rows["ceiling"].astype(float)
    axis.barh(y, ceiling - floor, left=floor, height=0.5, color="#e4e4e4", label="from floor to ceiling")
    for bound, name, colour in ((floor, "floor", COLOURS[5]), (ceiling, "ceiling", COLOURS[3])):
        axis.scatter(bound, y, marker="|", s=150, linewidth=2.5, color=colour, label=name)
    errors = np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]])
    axis.errorbar(rows["value"], y, xerr=errors, fmt="o", color=COLOURS[7], capsize=3, label="generated, 95% interval")
    for place, value in zip(y, rows["value"], strict=True):
        axis.annotate(f"{value:.2f}", (value, place), (0, 6), textcoords="offset points", fontsize=8, ha="center")
    axis.set_yticks(range(len(tasks)), [_in_words(task) for task in tasks], fontsize=8)
    axis.set_ylim(-0.6, len(tasks) - 0.3)
    if measure.bounded:
        left, right = axis.get_xlim()
        axis.set_xlim(max(left, -0.05), min(right, 1.05))
    axis.set_title(measure.title, fontsize=11)
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)


def _in_words(task: str) -> str:
    """composition of 2 → composition of 2 pictures; part head → head."""
    if task.startswith("composition"):
        return task + (" picture" if task.endswith(" 1") else " pictures")
    name = task.removeprefix(PART)
    return task if name.isdigit() else name
