"""Palettes: for each part its variants, as crops of real pictures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
from partcraft_kedro.parts.sheet import PartSheet

_DECODED = 320  # pixels of a picture that crops are cut from
_CLASSES = 3  # named of a variant
_NO_PICTURE = "There is no such picture in this dataset."


@dataclass(frozen=True)
class Variant:
    """A look of a part, which `count` pictures have. rows: these pictures, the most typical first, whose id is
    `typical`; classes: the commonest of theirs. Where the pictures are not, there is nothing of these three."""

    part: int
    number: int
    count: int
    rows: np.ndarray | Sequence[int] = ()
    typical: str | None = None
    classes: Sequence[str] = ()


class Palette(ABC):
    """The variants that there are to choose from. names: of the parts, background first."""

    def __init__(self, names: list[str], predictor: PartPredictor):
        self.names, self._predictor = names, predictor

    @cached_property
    def variants(self) -> list[list[Variant]]:
        """Of each part, the commonest first; those that no picture has are left out."""
        found = [self._variants_of(part) for part in range(len(self.names))]
        return [sorted(of_part, key=lambda variant: -variant.count) for of_part in found]

    @abstractmethod
    def _variants_of(self, part: int) -> list[Variant]:
        """By their numbers."""

    @abstractmethod
    def crop(self, part: int, number: int, size: int) -> Image.Image:
        """The part in the picture that is most typical of a variant, `size` pixels square. Raises UserError if no
        picture has it."""

    @abstractmethod
    def picture(self, id: str, size: int) -> Image.Image:
        """A picture of the dataset, its centre square. Raises UserError if there is none of that id."""

    @abstractmethod
    def code_of(self, id: str) -> list[int | None]:
        """All parts of a picture; None where one does not show. Raises UserError if there is none of that id."""

    def variant(self, part: int, number: int) -> Variant:
        """Raises UserError if no picture has it."""
        for variant in self.variants[part] if 0 <= part < len(self.names) else ():
            if variant.number == number:
                return variant
        raise UserError(f"There is no variant {number} of part {part} in this palette.")

    def like(self, part: int, number: int) -> list[int]:
        """The other variants of the part, the most alike first."""
        self.variant(part, number)
        order = self._predictor.likeness(part)[number].argsort(descending=True).tolist()
        offered = {variant.number for variant in self.variants[part]} - {number}
        return [other for other in order if other in offered]

    def shuffle(self, code: list[int | None], locked: set[int], rng: np.random.Generator) -> list[int | None]:
        """Another variant for each part that is not locked, if it has one, each as often as pictures have it."""
        shuffled = list(code)
        for part in set(range(len(self.names))) - locked:
            others = [variant for variant in self.variants[part] if variant.number != code[part]]
            if others:
                counts = np.array([variant.count for variant in others])
                shuffled[part] = others[rng.choice(len(others), p=counts / counts.sum())].number
        return shuffled


class AdapterPalette(Palette):
    """The variants that an adapter carries crops of: all there is where its pictures are not."""

    def __init__(self, sheet: PartSheet, predictor: PartPredictor):
        super().__init__(sheet.names, predictor)
        self._sheet = sheet

    def _variants_of(self, part: int) -> list[Variant]:
        return [Variant(part, number, int(count)) for number, count in enumerate(self._sheet.counts[part]) if count]

    def crop(self, part: int, number: int, size: int) -> Image.Image:
        self.variant(part, number)
        crop = self._sheet.crop(part, number)
        assert crop is not None  # variants that no picture shows are none of the palette's
        return Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)

    def picture(self, id: str, size: int) -> Image.Image:
        raise UserError(_NO_PICTURE)

    def code_of(self, id: str) -> list[int | None]:
        raise UserError(_NO_PICTURE)


class DatasetPalette(Palette):
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
        super().__init__(names, predictor)
        self.records = records.reset_index(drop=True)
        of_records = codes.set_index("id").loc[records["id"]]
        self.codes, self._cosines = np.stack(of_records["code"]), np.stack(of_records["cosine"])
        self._label_maps, self._root = label_maps, root
        self._rows = {id: row for row, id in enumerate(self.records["id"])}

    def _variants_of(self, part: int) -> list[Variant]:
        code, cosine = self.codes[:, part], self._cosines[:, part]
        found = []
        for number in np.unique(code[code != ABSENT]):
            rows = np.flatnonzero(code == number)
            rows = rows[np.argsort(-cosine[rows], kind="stable")]
            commonest = self.records["class_name"].iloc[rows].value_counts().index[:_CLASSES]
            typical = self.records["id"].iloc[rows[0]]
            found.append(Variant(part, int(number), len(rows), rows, typical, list(commonest)))
        return found

    def crop(self, part: int, number: int, size: int) -> Image.Image:
        row = self.variant(part, number).rows[0]
        picture = load_picture(self._root / self.records["path"].iloc[row], _DECODED)
        crop = typical_crop(picture, self._label_maps[row] == part, part)
        return Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)

    def picture(self, id: str, size: int) -> Image.Image:
        return Image.fromarray(load_picture(self._root / self.records["path"].iloc[self._row(id)], size))

    def code_of(self, id: str) -> list[int | None]:
        return [None if variant == ABSENT else int(variant) for variant in self.codes[self._row(id)]]

    def _row(self, id: str) -> int:
        if id not in self._rows:
            raise UserError(_NO_PICTURE)
        return self._rows[id]
