"""One table of records for every dataset, and the decoding of pictures.

Columns: `id` (unique, str), `path` (relative to the data folder), `class_name`, `split` (`train` or `test`).
Creatures also carry their six attributes and their pose.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.images import creatures
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import write_file


def load_picture(path: Path, size: int) -> np.ndarray:
    """Decode, upright, in RGB, shortest side to `size` (bicubic), centre crop: (size, size, 3) uint8.

    Raises UserError naming the file if it cannot be decoded whole.
    """
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip to white
                upright = Image.fromarray((np.asarray(upright) / 257).astype(np.uint8))
            picture = upright.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"Picture {path} is missing: restore it, or delete its folder to have it made again.") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UserError(f"Picture {path} cannot be decoded ({error}): replace or remove it.") from error
    return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC))


def load_pictures(paths: Iterable[Path], size: int) -> np.ndarray:
    """Several pictures, (n, size, size, 3) uint8."""
    return np.stack([load_picture(path, size) for path in paths])


def check_pictures(records: pd.DataFrame, data_folder: Path, worst: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every picture once and set broken ones aside.

    Returns (records, quarantine); quarantine has columns id, path, reason.
    Raises UserError if more than the share `worst` (0..1) is broken.
    """
    reasons = {}
    for row in tqdm(records.itertuples(), total=len(records), desc="check pictures", leave=False):
        try:
            load_picture(data_folder / row.path, 8)
        except UserError as error:
            reasons[row.id] = str(error)
    if len(reasons) > worst * len(records):
        raise UserError(
            f"{len(reasons)} of {len(records)} pictures are broken, more than images.worst_broken_share="
            f"{worst:g} allows; the first: {next(iter(reasons.values()))}"
        )
    broken = records["id"].isin(list(reasons))
    quarantine = records.loc[broken, ["id", "path"]].assign(reason=[reasons[i] for i in records.loc[broken, "id"]])
    return records[~broken].reset_index(drop=True), quarantine.reset_index(drop=True)


def draw_creatures(
    folder: Path, data_folder: Path, *, species: int, pictures_per_species: int, test_fraction: float, seed: int
) -> pd.DataFrame:
    """Draw the creatures dataset into `folder` (`images/`, `masks/`), and return its records.

    Backgrounds and poses are drawn independently of the species. The last pictures of each species are its
    test split. A picture that is already there is kept.
    """
    rows = []
    kinds = creatures.make_species(species, seed)
    test_count = round(test_fraction * pictures_per_species)
    jobs = [(s, k) for s in range(species) for k in range(pictures_per_species)]
    for kind, copy in tqdm(jobs, desc="draw creatures"):
        rng = numpy_generator(seed, "creature picture", kind, copy)
        backdrop = creatures.random_creature(rng)
        creature = kinds[kind].with_attribute("background", backdrop)
        pose = creatures.random_pose(rng)
        name = f"{kind:03d}_{copy:03d}"
        picture_path, mask_path = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
        if not (picture_path.exists() and mask_path.exists()):
            picture, mask = creatures.draw(creature, pose)
            for path, array in ((picture_path, picture), (mask_path, mask)):
                write_file(path, lambda partial, array=array: Image.fromarray(array).save(partial))
        rows.append(
            {
                "id": name,
                "path": picture_path.relative_to(data_folder).as_posix(),
                "mask_path": mask_path.relative_to(data_folder).as_posix(),
                "class_name": f"species_{kind:02d}",
                "split": "test" if copy >= pictures_per_species - test_count else "train",
                **creatures.creature_to_row(creature, pose),
            }
        )
    return pd.DataFrame(rows)
