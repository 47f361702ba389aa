"""What a drawn world is: pictures whose every part and attribute is known exactly.

A photograph cannot tell where its parts really end or what a recomposed subject should have looked like. A drawing can:
each comes with an exact mask and with attributes in words, and any mix of parts can be drawn again in the same pose.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

PLACES: Mapping[str, tuple] = {
    "sky": ((150, 190, 222), (204, 222, 236)),
    "forest": ((34, 58, 40), (66, 92, 60)),
    "sand": ((196, 172, 130), (222, 202, 166)),
    "rock": ((104, 102, 104), (146, 142, 140)),
    "dusk": ((72, 52, 88), (128, 84, 104)),
    "meadow": ((124, 142, 70), (168, 178, 104)),
    "sea": ((24, 86, 106), (58, 130, 142)),
    "earth": ((94, 66, 46), (132, 98, 72)),
}
"""Backgrounds, each with the two ends of the colour range that its noise moves between."""

Subject = dict[str, str]
"""What is drawn: for each label its look in words, `striped red`; for the background its place, `sand`."""


@dataclass(frozen=True)
class Drawing:
    """picture: (128, 128, 3) uint8; mask: (128, 128) uint8, the label of each pixel, in the order of the world's
    labels; details: the same, but where a detail shows that detail's number, counted on from the labels."""

    picture: np.ndarray
    mask: np.ndarray
    details: np.ndarray


class World(ABC):
    """One kind of drawn picture."""

    name: ClassVar[str]
    noun: ClassVar[str]
    """What captions call a subject: `a photo of a <noun>`."""
    looks: ClassVar[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]]
    """For each part the styles and the colours that it may have; a look is one of each."""
    details: ClassVar[Mapping[str, str]] = {}
    """What a picture shows beside its labels (an eye), and the label that it lies in."""
    hidden: ClassVar[frozenset[str]] = frozenset()
    """Parts that a pose may hide: it then has a field `<part>_visible`."""
    most_classes: ClassVar[int | None] = None
    """How many classes there are; none: as many as one likes."""
    pose: ClassVar[type]
    """A frozen dataclass: how a subject is drawn, everything about a picture but its attributes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The background and the parts; a mask's value is the position."""
        return ("background", *self.looks)

    @abstractmethod
    def random_pose(self, rng: np.random.Generator) -> Any:
        """A pose of this world."""

    @abstractmethod
    def draw(self, subject: Subject, pose: Any) -> Drawing:
        """Paint a subject."""

    @abstractmethod
    def is_held_out(self, subject: Subject) -> bool:
        """Whether a subject combines looks that the base model has never seen together."""

    @abstractmethod
    def random_member(self, class_index: int, classes: int, rng: np.random.Generator, seed: int) -> Subject:
        """A subject of one of a dataset's classes; every one of the default dataset is held out."""

    @abstractmethod
    def class_name(self, class_index: int) -> str:
        """What a dataset calls a class."""

    def random_subject(self, rng: np.random.Generator) -> Subject:
        """Every attribute drawn independently and evenly."""
        place = {"background": str(rng.choice(list(PLACES)))}
        return place | {
            part: f"{rng.choice(styles)} {rng.choice(colours)}" for part, (styles, colours) in self.looks.items()
        }

    def describe(self, subject: Subject) -> str:
        """The full caption of a subject: `a photo of a bird, striped red head, …, on sand`."""
        parts = ", ".join(f"{subject[part]} {part}" for part in self.looks)
        return f"a photo of a {self.noun}, {parts}, on {subject['background']}"

    def intended(self, row: pd.Series, records: pd.DataFrame, matching: Mapping[int, str]) -> tuple[Subject, Any]:
        """What a planned picture should show: the base in its pose, with each swapped part from its source.

        row: of the plan, with `sources` and `swapped`; records: indexed by id; matching: discovered label → true label.
        A swapped part that stands for no true label stays the base's. A part that a pose may hide shows where that of
        its source does.
        """
        subject, pose = self.from_row(records.loc[row["sources"][0]].to_dict())
        for source, part in zip(row["sources"][1:], row["swapped"], strict=True):
            if label := matching.get(part):
                other, other_pose = self.from_row(records.loc[source].to_dict())
                subject = subject | {label: other[label]}
                if label in self.hidden:
                    visible = f"{label}_visible"
                    pose = replace(pose, **{visible: getattr(other_pose, visible)})
        return subject, pose

    def drawing(self, canvas: np.ndarray, details: np.ndarray) -> Drawing:
        """A drawing of a lit canvas and a mask that knows the details."""
        hosts = [*range(len(self.labels)), *(self.labels.index(host) for host in self.details.values())]
        return Drawing(canvas, np.array(hosts, np.uint8)[details], details)

    def value(self, name: str) -> int:
        """The mask value of a label or detail."""
        return (*self.labels, *self.details).index(name)

    def to_row(self, subject: Subject, pose: Any) -> dict[str, Any]:
        """Attributes and pose as flat columns that JSON can hold."""
        columns = {f"pose_{name}": value for name, value in asdict(pose).items()}
        flat = {name: list(value) if isinstance(value, tuple) else value for name, value in columns.items()}
        return {label: subject[label] for label in self.labels} | flat

    def from_row(self, row: Mapping[str, Any]) -> tuple[Subject, Any]:
        """The inverse of `to_row`."""
        columns = {name.removeprefix("pose_"): row[name] for name in row if name.startswith("pose_")}
        lists = {name: tuple(map(float, value)) for name, value in columns.items() if np.ndim(value)}
        return {label: row[label] for label in self.labels}, self.pose(**columns | lists)
