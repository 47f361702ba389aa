"""Points as processes."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from partcraft_kedro.files import write_file
from partcraft_kedro.stopping import ENDS_WITH_PARENT
from partcraft_kedro.sweeps.book import Book
from partcraft_kedro.sweeps.grid import Point
from partcraft_kedro.sweeps.plan import with_options
from partcraft_kedro.sweeps.tracker import Tracker

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """How the sweep starts `kedro run`: environment, options for all points, and where in each layer they belong."""

    env: str | None
    parameters: dict[str, Any]
    place: str

    def start(
        self, run: dict[str, str], place: str, options: dict[str, Any], environment: dict[str, str], log: Path
    ) -> subprocess.Popen:
        """A process of `kedro run` with some more options. `<log>.yml` is what to give `kedro run --config`.

        run: arguments of `kedro run`.
        """
        config, content = log.with_suffix(".yml"), {"run": run | {"params": with_options(self.parameters, options)}}
        write_file(config, lambda partial: partial.write_text(yaml.safe_dump(content)))
        command = [sys.executable, "-m", "kedro", "run", f"--config={config}"]
        with log.open("wb") as output:
            return subprocess.Popen(
                [*command, f"--env={self.env}"] if self.env else command,
                env=os.environ | environment | {"PARTCRAFT_POINT": self.place + place, ENDS_WITH_PARENT: "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


class Process:
    """`kedro run` for one point, in a process of its own, its output in `log`."""

    def __init__(self, point: Point, book: Book, command: Command, tracker: Tracker):
        self.point, self.log = point, book.place_of(point) / "log.txt"
        self._book, self._command, self._tracker = book, command, tracker

    def start(self, environment: dict[str, str]) -> None:
        self.failed = False
        self._run_id = self._tracker.begin(self.point)
        named = {"MLFLOW_RUN_ID": self._run_id, "PARTCRAFT_RUN_NAME": self.point.title}
        self._process = self._command.start(
            {"pipelines": "point"}, f"/{self.point.name}", self.point.options, environment | named, self.log
        )

    def ended(self) -> bool:
        """Whether the run is over; if it went well, its book is then written."""
        if self._process.poll() is None:
            return False
        try:
            if self._process.returncode == 0:
                version = self._tracker.adapter_version(self._run_id)
                self._book.write_point(self.point, run_id=self._run_id, adapter_version=version)
                return True
            self._tracker.end("FAILED", self._run_id)
        except Exception:  # MLflow's trouble with one point is not that of the others
            _logger.exception("MLflow failed at the end of %s.", self.point.name)
        self.failed = True
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._tracker.end("KILLED", self._run_id)

    def doing(self) -> str:
        """The end of the last line of its output, such as a progress bar."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 2000))
            lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "starts")[:48]
