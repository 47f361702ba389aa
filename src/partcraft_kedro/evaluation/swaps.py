"""What became of each part where parts were swapped.

Transfer: a swapped part is the one asked for. Preservation: every other part is, too. Leakage: a part that was not
swapped differs from that of the picture before the swap, which has the same noise; what was wrong there already, and
stayed so, is no leakage.

All is told of the parts of n pictures, (n, M+1) float, NaN where there is nothing to tell: the mean of a row is a
picture's score, the mean of a column a part's.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


def equal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where parts have the same look, else 0, NaN where they show in neither: (n, M+1), of looks or codes of any
    kind, None where a part does not show."""
    same = (first == second).astype(float)
    return np.where(pd.isna(first) & pd.isna(second), np.nan, same)


@dataclass(frozen=True)
class Swaps:
    """Which parts were swapped in each of n planned pictures.

    swapped: in all, since: since the picture before, both (n, M+1) bool; before: that picture's row, -1 where there is
    none, (n,); chains: equal for pictures of the same noise, (n,).
    """

    swapped: np.ndarray
    since: np.ndarray
    before: np.ndarray
    chains: np.ndarray

    @classmethod
    def of_plan(cls, plan: pd.DataFrame, labels: int) -> "Swaps":
        """plan: of `make_plan`; labels: M+1."""
        swapped = np.zeros((len(plan), labels), bool)
        for row, parts in enumerate(plan["swapped"]):
            swapped[row, list(parts)] = True
        before = pd.Index(plan["id"]).get_indexer(plan["before"])
        since = swapped & ~np.where(before[:, None] >= 0, swapped[before], True)
        return cls(swapped, since, before, pd.factorize(plan["noise"])[0])

    def transfer(self, as_asked: np.ndarray) -> np.ndarray:
        """Of each swapped part, how far it is as asked for."""
        return np.where(self.swapped, as_asked, np.nan)

    def preservation(self, as_asked: np.ndarray) -> np.ndarray:
        """The same of every other part, where there is a swapped one."""
        return np.where(self.swapped.any(1, keepdims=True) & ~self.swapped, as_asked, np.nan)

    def leakage(self, same: np.ndarray) -> np.ndarray:
        """How far each part differs that was not swapped since the picture before. same: how far it is as there."""
        return np.where(self.since.any(1, keepdims=True) & ~self.since, 1 - same, np.nan)

    def measures(self, as_asked: np.ndarray, same: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
        """All three by name."""
        return {
            f"{prefix}transfer": self.transfer(as_asked),
            f"{prefix}preservation": self.preservation(as_asked),
            f"{prefix}leakage": self.leakage(same),
        }

    def leakage_by_swap(self, leakage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean leakage into each part, a column, where one part alone was swapped, a row: (M+1, M+1), NaN where
        there is none; and of how many pictures."""
        alone = self.since & (self.since.sum(1, keepdims=True) == 1)
        known = ~np.isnan(leakage)
        counts = alone.T.astype(int) @ known
        with np.errstate(invalid="ignore"):
            return alone.T.astype(float) @ np.where(known, leakage, 0) / counts, counts
