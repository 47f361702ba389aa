"""What is true of pictures made from drawings: what each should show, and whether it does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.drawn.outlines import Outlines
from partcraft_kedro.drawn.world import Subject, World
from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.images.tensors import to_unit


@dataclass(frozen=True)
class Truth:
    """A world and its judge, and what discovered parts stand for.

    matching: discovered label → true label, in words.
    """

    world: World
    judge: Judge
    outlines: Outlines
    matching: dict[int, str]

    @classmethod
    def load(cls, world_name: str, judge_path: Path, matching: dict[int, str]) -> "Truth":
        world, judge = WORLDS[world_name], Judge.load(judge_path)
        return cls(world, judge, Outlines.of_drawings(world, judge), matching)

    def intended(self, row: pd.Series, records: pd.DataFrame) -> tuple[Subject, Any]:
        """What a planned picture should show."""
        return self.world.intended(row, records, self.matching)

    def draw_intended(self, plan: pd.DataFrame, records: pd.DataFrame, batch: int) -> Iterator[np.ndarray]:
        """Drawings of what is planned, (batch, h, w, 3) uint8: what a perfect model would make."""
        for start in range(0, len(plan), batch):
            rows = plan.iloc[start : start + batch].iterrows()
            yield np.stack([self.world.draw(*self.intended(row, records)).picture for _, row in rows])

    def score(self, subjects: list[Subject], pictures: np.ndarray) -> pd.DataFrame:
        """The judge's view of pictures, a row each.

        asked, seen: the intended looks and those that it sees, by label, without labels that need not show and do not;
        judge: the share of them that are equal; shape: 1 if the outlines are those of drawings.
        """
        shown = to_unit(pictures)
        rows = []
        for subject, seen in zip(subjects, self.judge.attributes(self.world, shown), strict=True):
            # What a pose may hide a prompt does not fix; every other part must show.
            labels = [name for name in self.world.labels if name not in self.world.hidden or seen[name] is not None]
            asked, seen = ({label: looks[label] for label in labels} for looks in (subject, seen))
            hits = [asked[label] == seen[label] for label in labels]
            rows.append({"judge": np.mean(hits), "asked": asked, "seen": seen})
        shape = self.outlines.passes(self.judge.outlines(self.world, shown))
        return pd.DataFrame(rows).assign(shape=shape.astype(float))

    def by_part(self, looks: Mapping[str, str | None], labels: int) -> list[str | None]:
        """Looks by label → those of the discovered labels that stand for them, None where one stands for none."""
        return [looks.get(self.matching.get(label, "")) for label in range(labels)]
