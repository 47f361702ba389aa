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

PROJECT = Path(__file__).parents[2]
_VERSION = re.compile(r"\d{4}-\d\d-\d\dT[\d.]+Z")


class Project:
    """`kedro run --env=test`, or `kedro sweep`, with data and MLflow records in `folder`."""

    def __init__(self, folder: Path):
        self.data = folder / "data"
        self.database = folder / "mlflow.db"
        self.data.mkdir(parents=True)
        tracking = f"sqlite:///{self.database}"
        self._environment = os.environ | {
            "PARTCRAFT_DATA": str(self.data),
            "MLFLOW_TRACKING_URI": tracking,
            "PARTCRAFT_ARTIFACTS": f"file://{folder}/mlartifacts",
        }

    def start(self, *arguments: str, command: str = "run", **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "kedro", command, "--env=test", *arguments]
        return subprocess.Popen(
            command,
            cwd=PROJECT,
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, command: str = "run", **environment: str) -> tuple[int, str]:
        """Exit code and all output."""
        process = self.start(*arguments, command=command, **environment)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def run_killed(self, when: Callable[[], bool], *arguments: str, command: str = "run") -> None:
        """Start, and kill with SIGKILL as soon as `when()` holds."""
        process = self.start(*arguments, command=command)
        while process.poll() is None and not when():
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def found(self, pattern: str) -> bool:
        return any(self.data.glob(pattern))

    def contents(self) -> dict[str, bytes]:
        """Every file by its path, versions' names left out; of several versions the newest."""
        return {
            _VERSION.sub("<version>", path.relative_to(self.data).as_posix()): path.read_bytes()
            for path in sorted(self.data.rglob("*"))
            if path.is_file()
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
