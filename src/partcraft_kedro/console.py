"""What a run tells at its end, on the terminal."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from kedro.io import DataCatalog
from rich.console import Console
from rich.table import Column, Table

from partcraft_kedro.datasets.own import path_of
from partcraft_kedro.evaluation.measures import MEASURES, PART, names_with

_OF_PARTS = {
    "nmi": ("agreement of discovered and true parts, patch by patch, normalised mutual information", "more"),
    "ari": ("the same as adjusted Rand index, 0 by chance", "more"),
    "iou": ("overlap of each true part with the part found for it", "more"),
    "nmi_pixels": ("nmi pixel by pixel, which 16×16 patches cannot bring to 1", "more"),
    "keypoint_error": ("distance of keypoints from where parts put them, in hundredths of the box", "less"),
    "foreground_iou": ("overlap of the foreground with the published boxes", "more"),
    "inside": ("share of each token's attention that falls inside its part's mask", "more"),
    "loss": ("the attention loss of the last steps", "less"),
}
"""What is measured of parts and attention: what it is, and whether more or less of it is better."""


def print_discovery(scores: dict, catalog: DataCatalog) -> None:
    """The numbers among the scores, and where figures and names of parts are."""
    table = Table("measure", "value", title="PartCraft: the discovered parts")
    for measure, value in scores.items():
        if isinstance(value, float):
            table.add_row(measure, f"{value:.3f}")
    console = Console()
    console.print(table)
    _explain(console, ((measure, *_OF_PARTS[measure]) for measure in scores if measure in _OF_PARTS))
    for name in ("part_maps_figure", "variants_figure", "worst_figure", "part_names"):
        console.print(f"{name}: {path_of(catalog, name)}", soft_wrap=True)


def print_scores(scores: pd.DataFrame, catalog: DataCatalog) -> None:
    """The score table, why a value is missing, and where the pictures are."""
    # Where it is narrow a long task is broken, never a number.
    table = Table("task", Column("measure", no_wrap=True), title="PartCraft: what was measured")
    for heading in ("value", "95% interval", "ceiling", "floor", "n"):
        table.add_column(heading, justify="right", no_wrap=True)

    def number(value: float, digits: int = 3) -> str:
        return "" if pd.isna(value) else f"{value:.{digits}f}"

    previous = None
    scores = scores[~scores["measure"].isin(names_with(of_regions=True))]  # for which a figure is the better place
    of_parts = scores["task"].str.startswith(PART)
    for row in scores[~of_parts].itertuples():
        if previous not in (None, row.task):
            table.add_section()
        interval = "" if pd.isna(row.low) else f"{row.low:.3f}–{row.high:.3f}"
        name = row.task if row.task != previous else ""
        table.add_row(
            name, row.measure, number(row.value), interval, number(row.ceiling), number(row.floor), number(row.n, 0)
        )
        previous = row.task
    console = Console()
    console.print(table)
    swapped = scores[of_parts & scores["measure"].isin(names_with(of_swaps=True))]
    if len(swapped):
        console.print(_table_of_swaps(swapped))
    names = dict.fromkeys(scores["measure"])
    of_pictures = (MEASURES[name] for name in names if name in MEASURES)
    _explain(console, ((each.name, each.meaning, "less" if each.less_is_better else "more") for each in of_pictures))
    _explain(console, ((name, *_OF_PARTS[name]) for name in names if name in _OF_PARTS))
    console.print("ceiling: what a perfect model would score; floor: another real picture, at random.", soft_wrap=True)
    for row in scores[scores["note"].notna()].itertuples():
        console.print(f"{row.task}, {row.measure}: {row.note}", soft_wrap=True)
    console.print(f"Pictures and tables: {path_of(catalog, 'score_table').parent}", soft_wrap=True)
    console.print("Look at the pipeline with `make viz`, compare runs with `make mlflow`.")


def _table_of_swaps(scores: pd.DataFrame) -> Table:
    """What became of each part where parts were swapped, a row for each."""
    told = [f"{row.value:.2f} ({row.low:.2f}–{row.high:.2f})" for row in scores.itertuples()]
    wide = scores.assign(told=told, part=scores["task"].str.removeprefix(PART))
    parts, measures = wide["part"].unique(), wide["measure"].unique()
    wide = wide.pivot(index="part", columns="measure", values="told").fillna("")
    table = Table("part", *(Column(name, justify="right") for name in measures), title="What became of each part")
    for part in parts:
        table.add_row(part, *wide.loc[part, measures])
    return table


def _explain(console: Console, measures: Iterable[tuple[str, str, str]]) -> None:
    """A line for each measure: its name, what it is, and whether more or less of it is better."""
    for name, meaning, better in measures:
        console.print(f"{name}: {meaning}; {better} is better.", soft_wrap=True, highlight=False)


def print_sweep(folder: Path) -> None:
    """The headlines of the sweep that lies in a folder."""
    from partcraft_kedro.experiments.summary import table_of_headlines  # SciPy, which takes long to import

    found = table_of_headlines(pd.read_parquet(folder / "sweep_summary.parquet"))
    headings = (Column(name, no_wrap=name == "setting") for name in found.columns)
    table = Table(*headings, title=f"{folder.name}: mean over seeds ± half the 95% interval")
    for row in found.itertuples(index=False):
        table.add_row(*map(str, row))
    Console().print(table)
