"""One table of records for every dataset, and the decoding of pictures.

Columns: `id` (unique, str), `path` (relative to the data folder, or absolute), `class_name`, `split` (`train` or
`test`); once checked also `sha256`, `width`, `height`, `duplicate_of`. Drawings carry their world, their attributes and
their pose, photographs a box and keypoints where the publisher gives them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from partcraft_kedro.errors import UserError


def open_picture(path: Path) -> Image.Image:
    """Decode whole, upright, in RGB; transparency on white, the first frame of an animation.

    Raises UserError naming the file if it cannot be decoded.
    """
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip to white
                upright = Image.fromarray((np.asarray(upright) / 257).astype(np.uint8))
            if upright.has_transparency_data:
                layers = Image.new("RGBA", upright.size, "white"), upright.convert("RGBA")
                upright = Image.alpha_composite(*layers)
            return upright.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"Picture {path} is missing: restore it, or delete its folder to have it made again.") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UserError(f"Picture {path} cannot be decoded ({error}): replace or remove it.") from error


def load_picture(path: Path, size: int) -> np.ndarray:
    """The centre square of a picture, resized (bicubic): (size, size, 3) uint8. Raises UserError as `open_picture`."""
    return np.asarray(ImageOps.fit(open_picture(path), (size, size), Image.Resampling.BICUBIC))


def load_pictures(paths: Iterable[Path], size: int) -> np.ndarray:
    """Several pictures, (n, size, size, 3) uint8."""
    pictures = [load_picture(path, size) for path in paths]
    return np.stack(pictures) if pictures else np.empty((0, size, size, 3), np.uint8)


def load_ahead(batches: Iterable[Sequence[Path]], size: int) -> Iterator[np.ndarray]:
    """`load_pictures` of each batch in turn, the next one decoded by threads while the caller works on this one."""
    with ThreadPoolExecutor() as pool:
        waiting: list[Iterator[np.ndarray]] = []
        for batch in batches:
            waiting.append(pool.map(lambda path: load_picture(path, size), batch))
            if len(waiting) > 1:
                yield np.stack(list(waiting.pop(0)))
        for last in waiting:
            yield np.stack(list(last))


def hash_pictures(records: pd.DataFrame, data_folder: Path) -> pd.Series:
    """SHA-256 of every picture's bytes, None for one that is missing."""

    def digest(path: str) -> str | None:
        try:
            with (data_folder / path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None

    with ThreadPoolExecutor() as pool:
        return pd.Series(list(pool.map(digest, records["path"])), index=records.index, dtype=object)


def check_pictures(records: pd.DataFrame, data_folder: Path, worst: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every picture once, in parallel, and set broken ones aside.

    records: with `sha256`. Returns (records, quarantine). Records gain `width` and `height` in pixels, upright, and
    `duplicate_of`, the id of the first picture with the same bytes; quarantine has columns id, path, reason.
    Raises UserError if more than the share `worst` (0..1) is broken.
    """

    def examine(path: str) -> tuple[int, int, str | None]:
        try:
            return *open_picture(data_folder / path).size, None
        except UserError as error:
            return 0, 0, str(error)

    with ThreadPoolExecutor() as pool:
        examined = tqdm(pool.map(examine, records["path"]), total=len(records), desc="check pictures", leave=False)
        seen = pd.DataFrame(list(examined), columns=["width", "height", "reason"], index=records.index)
    broken = seen["reason"].notna()
    if broken.sum() > worst * len(records):
        raise UserError(
            f"{broken.sum()} of {len(records)} pictures are broken, more than images.worst_broken_share="
            f"{worst:g} allows; the first: {seen.loc[broken, 'reason'].iloc[0]}"
        )
    firsts = records[~broken].groupby("sha256")["id"].transform("first")
    kept = records[~broken].assign(
        width=seen["width"], height=seen["height"], duplicate_of=firsts.where(firsts != records.loc[~broken, "id"])
    )
    quarantine = records.loc[broken, ["id", "path"]].assign(reason=seen.loc[broken, "reason"])
    return kept.reset_index(drop=True), quarantine.reset_index(drop=True)
