"""The one table of what is measured on generated pictures, and the forms that its results take.

Whoever tabulates, draws, logs or compares results reads here what there is: a new measure is a row of this table and
the module that computes it. Scores of the discovered parts are passed on as they come, and no module knows their names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Measure:
    """One measure.

    name: its key in every table; of a picture's measure also its column in the table of pictures, where its ceiling
    and its floor are `<name>_ceiling` and `<name>_floor`.
    meaning: what it is, for people, in a few words; less_is_better: else more is.
    title: for people; fid_title: the same on the features of FID, of a measure of sets.
    per_picture: a mean over pictures, with interval, ceiling and floor; else of all pictures as a set.
    of_codes: needs nothing but codes, so that pictures which are sampled while training have it too.
    of_request: asks for what was asked for; else any real picture is as good as another, and there is no floor.
    of_swaps: of what parts were swapped, in figures of their own; left out of a task in which no picture has it.
    of_regions: of how far regions overlap; in a figure of its own.
    bounded: shown on an axis from 0 to 1.
    compared: what runs are compared by: in the tables and figures of sweeps, and a tag of the registered adapter.
    headline: shown where there is little room, too.
    """

    name: str
    title: str
    meaning: str
    less_is_better: bool = False
    fid_title: str = ""
    per_picture: bool = True
    of_codes: bool = False
    of_request: bool = True
    of_swaps: bool = False
    of_regions: bool = False
    bounded: bool = True
    compared: bool = True
    headline: bool = False

    def caption(self, scores: Mapping[str, Any]) -> str:
        """What stands under a picture with these scores: EMR 0.50."""
        return f"{self.title} {scores[self.name]:.2f}"


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "emr",
            "EMR",
            "share of the part tokens asked for that are found again in the picture",
            of_codes=True,
            headline=True,
        ),
        Measure(
            "cosim",
            "CoSim",
            "how near the found variants are to those asked for, as the cosine of their centroids",
            of_codes=True,
        ),
        Measure("judge", "judge", "share of looks that an independent network finds as asked for"),
        Measure(
            "transfer",
            "transfer",
            "share of the swapped parts that are as asked for, to the judge, in photographs by their codes",
            of_swaps=True,
            compared=False,
        ),
        Measure(
            "preservation",
            "preservation",
            "share of all other parts that are, where some were swapped",
            of_swaps=True,
            compared=False,
        ),
        Measure(
            "leakage",
            "leakage",
            "share of them that the last swap changed, against a picture of the same noise without it",
            less_is_better=True,
            of_swaps=True,
            compared=False,
        ),
        Measure(
            "shape",
            "shape",
            "share of pictures with every part in place and of a drawing's size",
            of_request=False,
        ),
        Measure("part_identity", "part identity", "how alike a second encoder finds each part and its source's"),
        Measure(
            "identity_transfer",
            "transfer, second encoder",
            "share of the swapped parts that look more like their own source's than like any other source's",
            of_swaps=True,
            compared=False,
        ),
        Measure(
            "identity_preservation",
            "preservation, second encoder",
            "the same of all other parts",
            of_swaps=True,
            compared=False,
        ),
        Measure(
            "identity_leakage",
            "leakage, second encoder",
            "how far other parts look different after the last swap, 1 - cosine",
            less_is_better=True,
            of_swaps=True,
            compared=False,
        ),
        Measure(
            "iou_looked_found",
            "IoU looked, found",
            "overlap of where each token looked and where its part was found in the picture",
            of_regions=True,
            compared=False,
        ),
        Measure(
            "iou_looked_mask",
            "IoU looked, mask",
            "overlap of where each token looked and its part's mask in the base, whose pose no prompt tells",
            of_regions=True,
            compared=False,
        ),
        Measure(
            "iou_found_mask",
            "IoU found, mask",
            "overlap of where each part was found and its mask in the base",
            of_regions=True,
            compared=False,
        ),
        Measure(
            "frechet",
            "Fréchet distance",
            "between real and generated pictures as two clouds of features",
            less_is_better=True,
            fid_title="FID",
            per_picture=False,
            bounded=False,
            headline=True,
        ),
        Measure(
            "kernel",
            "kernel distance",
            "the same by a kernel, unbiased with few pictures, so that it may be below 0",
            less_is_better=True,
            fid_title="KID",
            per_picture=False,
            bounded=False,
            compared=False,
        ),
        Measure(
            "density",
            "density",
            "how densely real pictures surround a generated one",
            fid_title="FID density",
            per_picture=False,
            bounded=False,
            compared=False,
        ),
        Measure(
            "coverage",
            "coverage",
            "share of real pictures with a generated one near them",
            fid_title="FID coverage",
            per_picture=False,
            compared=False,
        ),
    )
}
"""Every measure by its name, in the order of all tables and figures."""

PART = "part "  # begins the task of what was measured of one part, all kinds of pictures together

_NUMBERS = ["value", "low", "high", "ceiling", "floor", "n"]
SCORE_COLUMNS = ["task", "measure", *_NUMBERS, "note"]
"""The columns of the score table."""


def names_with(**properties: bool) -> list[str]:
    """The names of the measures with these properties, in the table's order."""
    wanted = properties.items()
    return [name for name, measure in MEASURES.items() if all(getattr(measure, key) == value for key, value in wanted)]


def title_of(task: str, name: str) -> str:
    """What a number of the score table is called for people: reconstruction EMR, FID, discovery nmi."""
    measure = MEASURES.get(name)
    if measure is None or measure.per_picture:
        return f"{task} {measure.title if measure else name}"
    return measure.fid_title if task == "fid" else measure.title


def tabulate(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The score table: one row for each task and measure, with value, 95% interval, ceiling, floor, number of pictures,
    and a note if there is one, such as why there is no value.

    rows: each with `task` and `measure`, and whichever other columns it has.
    """
    table = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return table.astype(dict.fromkeys(_NUMBERS, float) | {"note": "string"})


def nest(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict]:
    """Rows of the score table of generated pictures as the tree of metrics.json: all that a row has by task and
    measure, of `composition of 2` by composition, 2 and measure, of `part head` by part, head and measure."""
    tree: dict[str, dict] = {"reconstruction": {}, "composition": {}, "transfer": {}}
    for row in rows:
        task = row["task"]
        kind, _, which = task.partition(" " if task.startswith(PART) else " of ")
        branch = tree.setdefault(kind, {})
        if which:
            branch = branch.setdefault(which, {})
        branch[row["measure"]] = {name: value for name, value in row.items() if name not in ("task", "measure")}
    return tree
