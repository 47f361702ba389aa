"""What a sweep writes down in its folder, for itself and for those who report on it."""

import json
from pathlib import Path
from typing import Any

from partcraft_kedro.files import write_json
from partcraft_kedro.options import SweepOptions
from partcraft_kedro.sweeps.grid import Point, points_of


class Book:
    """The books of the sweep in a folder: `stage.json`, what it is; `sweep.json`, its MLflow run; `<point>/point.json`,
    what there is to know of a point that is done."""

    def __init__(self, folder: Path):
        self.folder = folder
        key = json.loads((folder / "stage.json").read_text())
        self.name: str = key["stage"]
        self.sweep = SweepOptions(**key["seen"]["sweep"])
        self._options: dict[str, dict[str, Any]] = key["seen"]["points"]

    @classmethod
    def all_below(cls, folder: Path) -> "list[Book]":
        """In the order in which the sweeps were begun."""
        keys = sorted(folder.rglob("stage.json"), key=lambda path: path.stat().st_mtime)
        return [cls(key.parent) for key in keys]

    @property
    def shared_options(self) -> dict[str, Any]:
        """By dotted name, those that are the same in all points."""
        first, *others = self._options.values()
        return {name: value for name, value in first.items() if all(point[name] == value for point in others)}

    @property
    def run_id(self) -> str | None:
        """Of the sweep's MLflow run; none: it has none yet."""
        path = self.folder / "sweep.json"
        return json.loads(path.read_text())["run_id"] if path.exists() else None

    def write_run(self, run_id: str) -> None:
        write_json(self.folder / "sweep.json", {"run_id": run_id})

    def place_of(self, point: Point) -> Path:
        """The point's folder."""
        return self.folder / point.name

    def is_done(self, point: Point) -> bool:
        return self._page(point).exists()

    def write_point(self, point: Point, *, run_id: str, adapter_version: str) -> None:
        """Note that a point is done."""
        told = {name: self._options[point.name][f"train.{name}"] for name in ("method", "attention_weight", "steps")}
        facts: dict[str, Any] = {"point": point.name, "setting": point.setting, "option": ", ".join(self.sweep.grid)}
        facts |= {"seed": point.seed, **told, "run_id": run_id, "adapter_version": adapter_version}
        write_json(self._page(point), facts)

    def points_done(self) -> list[tuple[Path, dict[str, Any]]]:
        """Folder and facts of each, in the grid's order: point, setting, option, seed, method, attention_weight, steps,
        run_id, adapter_version."""
        done = [point for point in points_of(self.sweep) if self.is_done(point)]
        return [(self.place_of(point), json.loads(self._page(point).read_text())) for point in done]

    def _page(self, point: Point) -> Path:
        return self.place_of(point) / "point.json"
