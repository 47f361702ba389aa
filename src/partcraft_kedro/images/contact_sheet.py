"""One look at a dataset: some of its pictures, how many there are, and what is wrong with it."""

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.images.records import load_picture

_COLUMNS, _ROWS = 8, 4
_SIZE = 128  # pixels of a picture


def draw_contact_sheet(records: pd.DataFrame, quarantine: pd.DataFrame, data_folder: Path) -> Figure:
    """The first pictures of `records`, at most one class after the other, above a line of totals."""
    turn = records.groupby("class_name").cumcount()
    shown = records.assign(turn=turn).sort_values("turn", kind="stable").head(_COLUMNS * _ROWS)
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.75 * rows + 0.9), layout="constrained")
    for axes, record in zip(figure.subplots(rows, _COLUMNS, squeeze=False).flat, shown.itertuples(), strict=False):
        axes.imshow(load_picture(data_folder / record.path, _SIZE))
        axes.set_title(textwrap.shorten(record.class_name.replace("_", " "), 24, placeholder="…"), fontsize=7)
    for axes in figure.axes:
        axes.set_axis_off()
    splits = records["split"].value_counts()
    totals = f"{len(records)} pictures of {records['class_name'].nunique()} classes"
    totals += "".join(f", {count} {split}" for split, count in splits.items())
    totals += f"; {records['duplicate_of'].notna().sum()} duplicates, {len(quarantine)} broken"
    for reason in quarantine["reason"].head(3):
        totals += "\n" + textwrap.shorten(reason, 150, placeholder="…")
    figure.suptitle(totals, fontsize=9)
    return figure
