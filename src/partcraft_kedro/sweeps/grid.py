"""The points of a sweep."""

import itertools
from dataclasses import dataclass
from typing import Any

from partcraft_kedro.options import SweepOptions, in_words


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    options: dotted names to values, the seed among them; setting: what tells it from other points but for the seed;
    title: both, of its MLflow run.
    """

    setting: str
    title: str
    seed: int
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return "_".join([*self.setting.replace("=", "-").replace("/", "-").split(", "), f"seed-{self.seed}"])


def points_of(sweep: SweepOptions) -> list[Point]:
    """All points, the grid's last option varying first within each seed."""
    points = []
    for seed, values in itertools.product(sweep.seeds, itertools.product(*sweep.grid.values())):
        varied = dict(zip(sweep.grid, values, strict=True))
        short = [f"{option.rpartition('.')[2]}={value}" for option, value in varied.items()]
        setting = ", ".join(short) if len(short) > 1 else str(values[0])
        title = ", ".join(in_words(*option) for option in [*varied.items(), ("train.seed", seed)])[:250]
        points.append(Point(setting, title, seed, sweep.options | varied | {"train.seed": seed}))
    return points
