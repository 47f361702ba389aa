"""Points as processes."""

import contextlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml
from filelock import FileLock, Timeout

from partcraft_kedro.files import write_file
from partcraft_kedro.stopping import ENDS_WITH_PARENT
from partcraft_kedro.sweeps.book import Book
from partcraft_kedro.sweeps.grid import Point
from partcraft_kedro.sweeps.plan import with_options
from partcraft_kedro.sweeps.tracker import Tracker

_logger = logging.getLogger(__name__)


class Running(Protocol):
    """What a sweep needs of `subprocess.Popen`."""

    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...


@dataclass(frozen=True)
class Machine:
    """This one, or a share of it: with some more variables of the environment."""

    environment: dict[str, str] = field(default_factory=dict)

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> Running:
        """A Python process that ends with this one, its output in `log`."""
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                env=os.environ | self.environment | environment | {ENDS_WITH_PARENT: "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


@dataclass(frozen=True)
class Command:
    """How the sweep starts `kedro run`: environment, options for all points, and where in each layer they belong."""

    env: str | None
    parameters: dict[str, Any]
    place: str

    def start(
        self,
        run: dict[str, str],
        place: str,
        options: dict[str, Any],
        environment: dict[str, str],
        log: Path,
        machine: Machine,
    ) -> Running:
        """A process of `kedro run` with some more options. `<log>.yml` is what to give `kedro run --config`.

        run: arguments of `kedro run`.
        """
        config, content = log.with_suffix(".yml"), {"run": run | {"params": with_options(self.parameters, options)}}
        write_file(config, lambda partial: partial.write_text(yaml.safe_dump(content)))
        arguments = ["-m", "kedro", "run", f"--config={config}", *([f"--env={self.env}"] if self.env else [])]
        return machine.start(arguments, environment | {"PARTCRAFT_POINT": self.place + place}, log)


class Process:
    """`kedro run` for one point, in a process of its own, its output in `log`."""

    def __init__(self, point: Point, book: Book, command: Command, tracker: Tracker):
        self.point, self.log = point, book.place_of(point) / "log.txt"
        self._book, self._command, self._tracker = book, command, tracker
        self._lock = FileLock(book.place_of(point) / ".lock")

    def take(self) -> bool:
        """Keep other commands from the point; whether none was at work on it."""
        self.log.parent.mkdir(exist_ok=True)
        with contextlib.suppress(Timeout):
            self._lock.acquire(timeout=0)
        return self._lock.is_locked

    def let_go(self) -> None:
        self._lock.release()

    def is_done(self) -> bool:
        return self._book.is_done(self.point)

    def start(self, machine: Machine) -> None:
        self._tracker.forget(self.point)
        self._run_id = self._tracker.begin(self.point)
        named = {"MLFLOW_RUN_ID": self._run_id, "PARTCRAFT_RUN_NAME": self.point.title}
        # On Ray's machines too a point has one GPU, and asks for no others.
        options = self.point.options | {"compute.engine": "local"}
        self._process = self._command.start(
            {"pipelines": "point"}, f"/{self.point.name}", options, named, self.log, machine
        )

    def ended(self) -> bool:
        """Whether the run is over; if it went well, its book is then written."""
        if self._process.poll() is None:
            return False
        self.failed = not self._is_noted()
        self.let_go()
        return True

    def _is_noted(self) -> bool:
        """Write down how the run ended, and whether it went well."""
        try:
            if self._process.returncode == 0:
                version = self._tracker.adapter_version(self._run_id)
                self._book.write_point(self.point, run_id=self._run_id, adapter_version=version)
                return True
            self._tracker.end("FAILED", self._run_id)
        except Exception:  # MLflow's trouble with one point is not that of the others
            _logger.exception("MLflow failed at the end of %s.", self.point.name)
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._tracker.end("KILLED", self._run_id)
        self.let_go()

    def doing(self) -> str:
        """The end of the last line of its output, such as a progress bar."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 2000))
            lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "starts")[:48]
