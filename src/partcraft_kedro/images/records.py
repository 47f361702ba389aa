"""One table of records for every dataset, and the check of its pictures.

Columns: `id` (unique, str), `path` (relative to the data folder, or absolute), `class_name`, `split` (`train` or
`test`); once checked also `sha256`, `width`, `height`, `duplicate_of`. Drawings carry their world, their attributes and
their pose, photographs a box and keypoints where the publisher gives them.
"""

import hashlib
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.images.decoding import decode, map_by_threads

_HANDFUL = 5  # broken pictures that stop no run as long as most are good, whatever their share


def hash_pictures(records: pd.DataFrame, data_folder: Path) -> pd.Series:
    """SHA-256 of every picture's bytes, None for one that is missing."""

    def digest(path: str) -> str | None:
        try:
            with (data_folder / path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None

    return pd.Series(list(map_by_threads(digest, records["path"])), index=records.index, dtype=object)


def examine_pictures(records: pd.DataFrame, data_folder: Path, worst: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every picture once, in parallel, and set broken ones aside.

    records: with `sha256`. Returns (records, quarantine). Records gain `width` and `height` in pixels, upright, and
    `duplicate_of`, the id of the first picture with the same bytes; quarantine has columns id, path, reason.
    Raises UserError if more than the share `worst` (0..1) is broken, or all are. Unless `worst` is 0, five broken
    pictures may always be set aside, as long as they are less than half: one of twelve is 8%.
    """

    def examine(path: str) -> tuple[int, int, str | None]:
        try:
            return *decode(data_folder / path)[1], None
        except UserError as error:
            return 0, 0, str(error)

    examined = tqdm(map_by_threads(examine, records["path"]), total=len(records), desc="check pictures", leave=False)
    seen = pd.DataFrame(list(examined), columns=["width", "height", "reason"], index=records.index)
    broken = seen["reason"].notna()
    few = min(_HANDFUL, (len(records) - 1) // 2) if worst else 0
    if broken.all() or broken.sum() > max(worst * len(records), few):
        allowed = "" if broken.all() else f", more than images.max_broken_share={worst:g} allows"
        raise UserError(
            f"{broken.sum()} of {len(records)} pictures are broken{allowed}; the first: "
            f"{seen.loc[broken, 'reason'].iloc[0]}"
        )
    firsts = records[~broken].groupby("sha256")["id"].transform("first")
    kept = records[~broken].assign(
        width=seen["width"], height=seen["height"], duplicate_of=firsts.where(firsts != records.loc[~broken, "id"])
    )
    quarantine = records.loc[broken, ["id", "path"]].assign(reason=seen.loc[broken, "reason"])
    return kept.reset_index(drop=True), quarantine.reset_index(drop=True)
