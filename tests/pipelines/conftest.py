"""Runs of the real command line, in a data folder of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from partcraft_kedro.project import lay_out

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a script's background, whose commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_VERSION = re.compile(r"\d{4}-\d\d-\d\dT[\d.]+Z")


class Project:
    """`kedro run --env=test`, `kedro sweep` or any other command, in a Kedro project that is `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.data = folder / "data"
        self.database = folder / "mlflow.db"
        lay_out(folder)

    def start(self, *arguments: str, command: str = "run", env: str = "test", **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "kedro", *command.split(), f"--env={env}", *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, command: str = "run", env: str = "test", **environment: str) -> tuple[int, str]:
        """Exit code and all output."""
        process = self.start(*arguments, command=command, env=env, **environment)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def run_killed(
        self, when: Callable[[], bool], *arguments: str, command: str = "run", by: signal.Signals = signal.SIGKILL
    ) -> tuple[int, str]:
        """Start, and send a signal as soon as `when()` holds; exit code and all output."""
        process = self.start(*arguments, command=command)
        while process.poll() is None and not when():
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        # Ctrl-C reaches every process of a terminal.
        (os.killpg if by == signal.SIGINT else os.kill)(process.pid, by)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def found(self, pattern: str) -> bool:
        return any(self.data.glob(pattern))

    def contents(self) -> dict[str, bytes]:
        """Every file by its path, versions' names left out; of several versions the newest. What notes how long runs
        took is left out."""
        return {
            _VERSION.sub("<version>", path.relative_to(self.data).as_posix()): path.read_bytes()
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and path.parent.name != ".runs"
        }


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project in which everything has run once."""
    project = Project(tmp_path_factory.mktemp("finished"))
    code, output = project.run()
    assert code == 0, output
    assert "PartCraft: what was measured" in output
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)
