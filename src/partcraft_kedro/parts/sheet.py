"""What an adapter carries of its parts, so that it can be used where the pictures are not: names, how many pictures
show each variant, and a crop of each."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import read_file
from partcraft_kedro.images.crops import typical_crop
from partcraft_kedro.images.decoding import load_picture

PARTS = "parts"
"""The folder of an adapter that a sheet lies in, with the part predictor."""
CROP = 128  # pixels
_READ = 512  # pixels of the picture that a crop is cut out of
_FACTS = "parts.json"


@dataclass(frozen=True)
class PartSheet:
    """names: of the parts, background first; counts: of each part how many training pictures show each variant, (K_m,);
    folder: where the crops lie."""

    names: list[str]
    counts: list[np.ndarray]
    folder: Path

    def crop(self, part: int, variant: int) -> np.ndarray | None:
        """The part in the picture that is most typical of a variant: (CROP, CROP, 3) uint8, None if no picture shows
        it."""
        if not self.counts[part][variant]:
            return None
        row, column = divmod(variant, _across(len(self.counts[part])))
        return self._crops[part][row * CROP : (row + 1) * CROP, column * CROP : (column + 1) * CROP]

    def card(self) -> str:
        """What a model card says of the parts."""
        rows = [
            f"| {part} | {name} | `<{name}:0>` to `<{name}:{len(of_part) - 1}>` | `parts/{part}.webp` | "
            f"{_across(len(of_part))} |\n"
            for part, (name, of_part) in enumerate(zip(self.names, self.counts, strict=True))
        ]
        return f"""
## Its parts
Of each variant a crop, row by row, from 0; white where no training picture shows it. The part predictor, which finds
them in pictures, is in `parts/`, too.

| part | name | tokens | crops | in a row |
|---|---|---|---|---|
{"".join(rows)}"""

    @cached_property
    def _crops(self) -> list[np.ndarray]:
        return [read_file(file, lambda path: np.asarray(Image.open(path))) for file in self._files]

    @property
    def _files(self) -> list[Path]:
        return [self.folder / f"{part}.webp" for part in range(len(self.names))]


def write_sheet(
    folder: Path,
    names: Sequence[str],
    variants: Sequence[int],
    paths: Sequence[Path],
    codes: np.ndarray,
    cosines: np.ndarray,
    label_maps: np.ndarray,
) -> None:
    """Cut every variant out of the picture that is nearest to its centroid, and write all of a part as one picture.

    variants: the number of each part's; paths: of n pictures; codes, cosines: (n, M+1); label_maps: (n, grid, grid).
    """
    counts = [np.bincount(of_part[of_part >= 0], minlength=k) for of_part, k in zip(codes.T, variants, strict=True)]
    with tqdm(total=sum(map(np.count_nonzero, counts)), desc="cut out parts", unit="variant") as bar:
        for part, of_part in enumerate(counts):
            across = _across(len(of_part))
            sheet = np.full((-(-len(of_part) // across) * CROP, across * CROP, 3), 255, np.uint8)
            for variant in np.flatnonzero(of_part).tolist():
                row = int(np.where(codes[:, part] == variant, cosines[:, part], -np.inf).argmax())
                crop = Image.fromarray(typical_crop(load_picture(paths[row], _READ), label_maps[row] == part, part))
                y, x = (CROP * place for place in divmod(variant, across))
                sheet[y : y + CROP, x : x + CROP] = np.asarray(crop.resize((CROP, CROP), Image.Resampling.LANCZOS))
                bar.update()
            Image.fromarray(sheet).save(folder / f"{part}.webp", quality=85, method=6)
    facts = {"names": list(names), "pictures": [of_part.tolist() for of_part in counts]}
    (folder / _FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")


def _across(variants: int) -> int:
    """Crops in a row, so that they make a square: WebP ends at 16,383 pixels, which are 127 crops."""
    return math.isqrt(variants - 1) + 1


def read_sheet(folder: Path) -> PartSheet:
    """Raises UserError if it is missing or damaged."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        counts = [np.array(of_part) for of_part in facts["pictures"]]
        sheet = PartSheet(facts["names"], counts, folder)
        if len(sheet.names) != len(counts):
            raise ValueError(f"{_FACTS} has {len(sheet.names)} names for {len(counts)} parts")
        if missing := [file.name for file in sheet._files if not file.exists()]:
            raise ValueError(f"{missing[0]} is missing")
    except Exception as error:  # every format has errors of its own
        raise UserError(
            f"{folder} does not tell an adapter's parts ({error}): run `kedro run --pipelines=train` again, or "
            "choose another adapter."
        ) from error
    return sheet
