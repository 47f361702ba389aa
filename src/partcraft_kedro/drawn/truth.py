"""What is true of pictures made from drawings: what each should show, and whether it does."""

from collections.abc import Iterator
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

    def score(self, subjects: list[Subject], swapped: list[set[str]], pictures: np.ndarray) -> pd.DataFrame:
        """The judge's view of pictures, a row each.

        judge: the share of labels whose look is the intended one, among those it sees; arrived and stayed: the same of
        swapped labels and of the others, NaN where there is none; shape: 1 if the outlines are those of drawings.
        swapped: the labels that each picture has from another than its base.
        """
        shown = to_unit(pictures)
        rows = []
        for subject, lent, seen in zip(subjects, swapped, self.judge.attributes(self.world, shown), strict=True):
            # What a pose may hide a prompt does not fix; every other part must show.
            labels = [name for name in self.world.labels if name not in self.world.hidden or seen[name] is not None]
            hits = {label: seen[label] == subject[label] for label in labels}
            kept = [hit for label, hit in hits.items() if label not in lent]
            arrived = [hit for label, hit in hits.items() if label in lent]
            rows.append({"judge": np.mean([*hits.values()]), "arrived": _mean(arrived), "stayed": _mean(kept)})
        shape = self.outlines.passes(self.judge.outlines(self.world, shown))
        return pd.DataFrame(rows).assign(shape=shape.astype(float))

    def lent(self, plan: pd.DataFrame) -> list[set[str]]:
        """The true labels that each planned picture has from another than its base."""
        return [{self.matching[part] for part in parts if part in self.matching} for parts in plan["swapped"]]


def _mean(hits: list[bool]) -> float:
    return float(np.mean(hits)) if hits else float("nan")
