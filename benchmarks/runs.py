"""`kedro run --env=test` as its users start it, in processes that can be broken off, and what it leaves behind.

Shared by killed.py, full_disk.py, beside.py and their tests. Each run is a fork of a process that has imported Kedro,
MLflow and torch already and done nothing else: that saves most of a short run's time.
"""

import logging
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path

from partcraft_kedro.pipeline_registry import register_pipelines

PROJECT = Path(__file__).parents[1]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        *("runs", "mlflow.store.tracking.sqlalchemy_store", "mlflow.pyfunc", "alembic.command"),
        *(f"partcraft_kedro.{module}" for module in ("cli", "settings", "training.loop", "features.extractor")),
        *(f"partcraft_kedro.evaluation.{module}" for module in ("distances", "metrics", "scores")),
    ]
)

_RUNNING = re.compile(r"Running node: (\w+)")
_VERSION = re.compile(r"\d{4}-\d\d-\d\dT[\d.]+Z")
STAGES = ("images", "features", "parts", "prompts", "train", "generate", "evaluate", "report")
STAGE_OF = {
    node.name.rpartition(".")[2]: next(stage for stage in STAGES if stage in node.tags)
    for node in register_pipelines()["__default__"].nodes
}
"""The stage of each node, which Kedro tells without its stage, in the order in which the nodes run."""


class Run:
    """A run, begun. `output` is what it has told so far.

    place: the folder that gets `data`, MLflow's database and artifacts, and a log; project: the Kedro project.
    """

    def __init__(self, place: Path, *arguments: str, project: Path = PROJECT, name: str = "run", **environment: str):
        place.mkdir(parents=True, exist_ok=True)
        self._log = place / f"{name}.txt"
        self._log.write_text("")
        there = {
            "PARTCRAFT_DATA": str(place / "data"),
            "PARTCRAFT_ARTIFACTS": str(place / "mlartifacts"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}",
        }
        command = ["kedro", "run", "--env=test", *arguments]
        self.process: BaseProcess = _forks.Process(
            target=_work, args=(command, project, dict(os.environ) | there | environment, self._log)
        )
        self.process.start()

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def node(self) -> str | None:
        """The node that runs, or ran last; none: before the first."""
        return (_RUNNING.findall(self.output) or [None])[-1]

    @property
    def stage(self) -> str:
        return STAGE_OF.get(self.node or "", "start")

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code; none: it runs on after `timeout` seconds."""
        self.process.join(timeout)
        return self.process.exitcode

    def wait_until_told(self, words: str) -> bool:
        """Whether it told `words` before it ended."""
        while words not in self.output:
            if self.wait(0.005) is not None:
                return words in self.output
        return True

    def finish(self) -> None:
        """Wait for the end; SystemExit if it is no good one."""
        if self.wait() != 0:
            raise SystemExit(f"A run failed:\n{self.output}")

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _work(command: list[str], project: Path, environment: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(project)
    sys.argv = command
    multiprocessing.set_start_method(None, force=True)  # the system's own, for its own processes
    from kedro.framework.cli import main

    logging.getLogger("kedro.pipeline.node").setLevel(logging.INFO)  # in whose midst trials break off
    main()


def seconds_alone(place: Path, *arguments: str) -> float:
    """Run it once to its end; returns how long that took."""
    begin = time.perf_counter()
    Run(place, *arguments).finish()
    return time.perf_counter() - begin


def contents(data: Path) -> dict[str, bytes]:
    """Every file of a data folder by its path, versions' names left out; of several versions the newest.

    Not what runs note of their times.
    """
    return {
        _VERSION.sub("<version>", path.relative_to(data).as_posix()): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock" and path.parent.name != ".runs"
    }


def of_the_same_folders(files: dict[str, bytes], found: dict[str, bytes]) -> dict[str, bytes]:
    """Of a data folder in which other options were run too, what lies in the folders of `found`."""
    folders = {Path(path).parent for path in found}
    return {path: content for path, content in files.items() if Path(path).parent in folders}


def differing(found: dict[str, bytes], *alone: dict[str, bytes]) -> list[str]:
    """The paths of files that are missing, or that no run alone has left, or has left with other bytes."""
    paths = found.keys() | set().union(*alone)
    return sorted(path for path in paths if found.get(path) not in [run[path] for run in alone if path in run])


def table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """In Markdown."""
    lines = [list(headings)]
    lines += [["---"] * len(lines[0]), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
