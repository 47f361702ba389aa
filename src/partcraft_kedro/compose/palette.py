"""Palettes: for each part its variants, as crops of real pictures."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from partcraft_kedro.errors import UserError
from partcraft_kedro.images.crops import typical_crop
from partcraft_kedro.images.decoding import load_picture
from partcraft_kedro.parts.predictor import ABSENT, PartPredictor

_DECODED = 320  # pixels of a picture that crops are cut from
_CLASSES = 3  # named of a variant


@dataclass(frozen=True)
class Variant:
    """A look of a part. rows: the pictures that have it, the most typical first, whose id is `typical`; classes: the
    commonest of theirs."""

    part: int
    number: int
    rows: np.ndarray
    typical: str
    classes: list[str]


class Palette:
    """The variants that a dataset's pictures have.

    records, label_maps: of the same pictures, in the same order; codes: of these by id; names: of the parts, background
    first; root: what records' paths are relative to.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        codes: pd.DataFrame,
        label_maps: np.ndarray,
        predictor: PartPredictor,
        names: list[str],
        root: Path,
    ):
        self.names = names
        self.records = records.reset_index(drop=True)
        of_records = codes.set_index("id").loc[records["id"]]
        self.codes, self._cosines = np.stack(of_records["code"]), np.stack(of_records["cosine"])
        self._label_maps, self._predictor, self._root = label_maps, predictor, root
        self._rows = {id: row for row, id in enumerate(self.records["id"])}

    @cached_property
    def variants(self) -> list[list[Variant]]:
        """Of each part, the commonest first; those that no picture has are left out."""
        return [self._variants_of(part) for part in range(len(self.names))]

    def _variants_of(self, part: int) -> list[Variant]:
        code, cosine = self.codes[:, part], self._cosines[:, part]
        found = []
        for number in np.unique(code[code != ABSENT]):
            rows = np.flatnonzero(code == number)
            rows = rows[np.argsort(-cosine[rows], kind="stable")]
            commonest = self.records["class_name"].iloc[rows].value_counts().index[:_CLASSES]
            typical = self.records["id"].iloc[rows[0]]
            found.append(Variant(part, int(number), rows, typical, list(commonest)))
        return sorted(found, key=lambda variant: -len(variant.rows))

    def variant(self, part: int, number: int) -> Variant:
        """Raises UserError if no picture has it."""
        for variant in self.variants[part] if 0 <= part < len(self.names) else ():
            if variant.number == number:
                return variant
        raise UserError(f"There is no variant {number} of part {part} in this palette.")

    def crop(self, part: int, number: int, size: int) -> Image.Image:
        """The part in the picture that is most typical of a variant, `size` pixels square."""
        row = self.variant(part, number).rows[0]
        picture = load_picture(self._root / self.records["path"].iloc[row], _DECODED)
        crop = typical_crop(picture, self._label_maps[row] == part, part)
        return Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)

    def like(self, part: int, number: int) -> list[int]:
        """The other variants of the part, the most alike first, by the cosine of their centroids."""
        self.variant(part, number)
        centroids = self._predictor.variants[part]
        order = (centroids @ centroids[number]).argsort(descending=True).tolist()
        offered = {variant.number for variant in self.variants[part]} - {number}
        return [other for other in order if other in offered]

    def picture(self, id: str, size: int) -> Image.Image:
        """A picture of the dataset, its centre square. Raises UserError if there is none of that id."""
        return Image.fromarray(load_picture(self._root / self.records["path"].iloc[self._row(id)], size))

    def code_of(self, id: str) -> list[int | None]:
        """All parts of a picture; None where one does not show. Raises UserError if there is none of that id."""
        return [None if variant == ABSENT else int(variant) for variant in self.codes[self._row(id)]]

    def _row(self, id: str) -> int:
        if id not in self._rows:
            raise UserError("There is no such picture in this dataset.")
        return self._rows[id]

    def shuffle(self, code: list[int | None], locked: set[int], rng: np.random.Generator) -> list[int | None]:
        """Another variant for each part that is not locked, if it has one, each as often as pictures have it."""
        shuffled = list(code)
        for part in set(range(len(self.names))) - locked:
            others = [variant for variant in self.variants[part] if variant.number != code[part]]
            if others:
                counts = np.array([len(variant.rows) for variant in others])
                shuffled[part] = others[rng.choice(len(others), p=counts / counts.sum())].number
        return shuffled
