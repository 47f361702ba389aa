"""One look at a dataset: some of its pictures, how many there are, and what is wrong with it."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.figure_style import HEIGHT, WIDTH, blocks, new_figure, picture_at, text_at
from partcraft_kedro.images.decoding import load_picture

_COLUMNS, _ROWS = 8, 4
_SIZE = 128  # pixels of a picture
_LINE = 16  # pixels of a line of text


def contact_sheet_figure(records: pd.DataFrame, quarantine: pd.DataFrame, data_folder: Path) -> Figure:
    """The first pictures of `records`, at most one class after the other, above a line of totals."""
    turn = records.groupby("class_name").cumcount()
    shown = records.assign(turn=turn).sort_values("turn", kind="stable").head(_COLUMNS * _ROWS)
    splits = records["split"].value_counts()
    totals = f"{len(records)} pictures of {records['class_name'].nunique()} classes"
    totals += "".join(f", {count} {split}" for split, count in splits.items())
    totals += f"; {records['duplicate_of'].notna().sum()} duplicates, {len(quarantine)} broken"
    figure, reasons = new_figure(totals), list(quarantine["reason"].head(3))
    side, places = blocks(len(shown), wide=1, below=_LINE, bottom=_LINE * len(reasons))
    for (x, y), record in zip(places, shown.itertuples(), strict=True):
        picture_at(figure, load_picture(data_folder / record.path, _SIZE), x, y, side)
        name = _shorten(record.class_name.replace("_", " "), 24)
        text_at(figure, name, x + side / 2, y + side + 2, fontsize=7, ha="center")
    for i, reason in enumerate(reversed(reasons), start=1):
        text_at(figure, _shorten(reason, 150), WIDTH / 2, HEIGHT - i * _LINE, fontsize=8, ha="center")
    return figure


def _shorten(text: str, most: int) -> str:
    """One line of at most `most` characters; unlike `textwrap.shorten` it keeps the beginning of a long word."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
