"""Long computations that are never done twice.

A stage works in a folder named after its fingerprint: a hash of all that it sees and of its version. A finished folder
is reused as it is; an unfinished one is gone on with; a changed option means another folder. Files are written beside
their place and renamed, and only the last one written says "finished", so nothing half-written is ever taken for whole.
Runs beside each other that need the same stage take turns: one works, the others wait and find it finished.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from partcraft_kedro.files import fingerprint_of, named_if_not_written, read_file, write_json
from partcraft_kedro.options import Config, Contents, Options, Selection, Silent, Weights
from partcraft_kedro.weights import config_fingerprint, model_fingerprint

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A kind of long computation.

    layer: the folder of data that its results lie in, such as `04_feature`; version: raised whenever `work` would make
    something else of the same arguments; work: the dotted name of a function that is given a `StageRef` to work in and
    what `Stages.run` was given, and may return a summary. It is imported where there is something to compute and
    nowhere else: what computes is slow to import.
    """

    name: str
    layer: str
    version: int
    work: str


@dataclass(frozen=True)
class StageRef:
    """The folder of one computation, and what stands for its content in the keys of others.

    summary: what its work returned; found: whether it was done already.
    """

    folder: Path
    fingerprint: str
    summary: dict[str, Any] = field(default_factory=dict)
    found: bool = False

    def table(self, name: str) -> pd.DataFrame:
        """The table that lies in it as `<name>.parquet`. Raises UserError if it is missing or damaged."""
        return read_file(self.folder / f"{name}.parquet", pd.read_parquet)

    def tables(self, pattern: str) -> list[pd.DataFrame]:
        """Those in it whose paths match a pattern, by name. Raises UserError if one is damaged."""
        return [read_file(path, pd.read_parquet) for path in sorted(self.folder.glob(pattern))]


class Stages:
    """Runs the stages of a dataset, or finds them done, below a folder of data.

    root: the folder that holds `01_raw` … `08_reporting`, to which records' paths are relative; dataset: names the
    folder in each of them; point: what a sweep adds to that folder where results are its own, empty outside of one.
    """

    def __init__(self, root: Path, dataset: str, point: str = ""):
        self.root, self.dataset, self.point = root, dataset, point
        self.asked: list[StageRef] = []
        """What was run or found so far."""

    def layer(self, layer: str) -> Path:
        """The dataset's folder in a layer."""
        return self.root / layer / self.dataset

    def run(self, stage: Stage, seen: Mapping[str, Any], silent: Mapping[str, Any] | None = None) -> StageRef:
        """Do the stage's work, go on with it, or find it done.

        seen: the arguments that its result depends on, which make its key: options (`Options`, or some of them by
        `Options.only`), tables, files and folders by their content, other stages, and whatever JSON can hold;
        silent: further ones that change nothing of the result, such as where to compute.
        """
        key = {"stage": stage.name, "version": stage.version}
        key["seen"] = {name: self._key_of(value) for name, value in seen.items()}
        with Workfolder(self.layer(stage.layer), key) as place:
            found = place.finished
            if not found:
                work = resolve_name(stage.work)
                place.finish(work(StageRef(place.folder, place.fingerprint), **seen, **(silent or {})))
            self.asked.append(StageRef(place.folder, place.fingerprint, place.summary, found))
            return self.asked[-1]

    def _key_of(self, value: Any) -> Any:
        memo = self.root / ".digests"
        if isinstance(value, StageRef):
            return value.fingerprint
        if isinstance(value, pd.DataFrame | Path):
            return fingerprint_of(value, memo)
        if isinstance(value, Options | Selection):
            return key_of_options(value, memo)
        return value


def key_of_options(options: Options | Selection, memo: Path) -> dict[str, Any]:
    """Values by name: none of what is silent, and models, their settings and files by their content."""
    key: dict[str, Any] = {}
    for name, value, marks in options.marked():
        weights = next((mark for mark in marks if isinstance(mark, Weights)), None)
        if any(isinstance(mark, Silent) for mark in marks):
            continue
        if isinstance(value, Options):
            key[name] = key_of_options(value, memo)
        elif weights and value is not None:
            content = model_fingerprint(value, weights.component, weights.option, memo)
            key[name] = [value, content] if weights.by_name_too else content
        elif any(isinstance(mark, Config) for mark in marks) and value is not None:
            key[name] = config_fingerprint(value, memo)
        elif any(isinstance(mark, Contents) for mark in marks) and value is not None:
            key[name] = fingerprint_of(value, memo) if value.exists() else None
        else:
            key[name] = str(value) if isinstance(value, Path) else value
    return key


class Workfolder:
    """The folder `<stage>-<fingerprint of key>` under `parent`; key: JSON with the stage's name as `stage`.

    As a context manager it keeps every other process out of an unfinished folder; a process that dies lets go.
    """

    def __init__(self, parent: Path, key: dict[str, Any]):
        self._key = key
        self.fingerprint = fingerprint_of(key)
        self.folder = parent / f"{key['stage']}-{self.fingerprint}"
        with named_if_not_written(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Workfolder":
        self._lock = FileLock(self.folder / ".lock")
        if not self.finished:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                _logger.warning("Another run is at work on %s: waiting until it is done.", self.folder)
                self._lock.acquire()
            if not (self.folder / "stage.json").exists():
                write_json(self.folder / "stage.json", self._key)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def finished(self) -> bool:
        return (self.folder / "finished.json").exists()

    @property
    def summary(self) -> dict[str, Any]:
        """What `finish` was given."""
        return read_file(self.folder / "finished.json", lambda path: json.loads(path.read_text()))

    def finish(self, summary: dict[str, Any] | None = None) -> None:
        """Declare the folder complete."""
        for partial in self.folder.rglob(".*.partial-*"):  # of workers that were lost, see `OWN_PARTIALS`
            partial.unlink(missing_ok=True)
        write_json(self.folder / "finished.json", summary or {})
