"""One look at a dataset: some of its pictures, how many there are, and what is wrong with it."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.images.decoding import load_picture

_COLUMNS, _ROWS = 8, 4
_SIZE = 128  # pixels of a picture


def contact_sheet_figure(records: pd.DataFrame, quarantine: pd.DataFrame, data_folder: Path) -> Figure:
    """The first pictures of `records`, at most one class after the other, above a line of totals."""
    turn = records.groupby("class_name").cumcount()
    shown = records.assign(turn=turn).sort_values("turn", kind="stable").head(_COLUMNS * _ROWS)
    rows = -(-len(shown) // _COLUMNS)
    as_it_is = {"parse_math": False}  # names of classes and files may hold `$`, which else begins a formula
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.75 * rows + 0.9), layout="constrained")
    for axes, record in zip(figure.subplots(rows, _COLUMNS, squeeze=False).flat, shown.itertuples(), strict=False):
        axes.imshow(load_picture(data_folder / record.path, _SIZE))
        axes.set_title(_shorten(record.class_name.replace("_", " "), 24), fontsize=7, **as_it_is)
    for axes in figure.axes:
        axes.set_axis_off()
    splits = records["split"].value_counts()
    totals = f"{len(records)} pictures of {records['class_name'].nunique()} classes"
    totals += "".join(f", {count} {split}" for split, count in splits.items())
    totals += f"; {records['duplicate_of'].notna().sum()} duplicates, {len(quarantine)} broken"
    for reason in quarantine["reason"].head(3):
        totals += "\n" + _shorten(reason, 150)
    figure.suptitle(totals, fontsize=9, **as_it_is)
    return figure


def _shorten(text: str, most: int) -> str:
    """One line of at most `most` characters; unlike `textwrap.shorten` it keeps the beginning of a long word."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
