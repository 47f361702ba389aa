"""Points on the machines of a Ray cluster."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from partcraft_kedro.cluster import connect
from partcraft_kedro.project import project_folder
from partcraft_kedro.stopping import ENDS_WITH_PARENT
from partcraft_kedro.sweeps.processes import Machine

# Of the environment, what the driver's user may have set for `kedro run`.
_PASSED_ON = ("PARTCRAFT_", "MLFLOW_", "KEDRO_", "HF_", "DO_NOT_TRACK")


@dataclass(frozen=True)
class RayMachine(Machine):
    """One of a cluster's, or a share of it; needs: of Ray's resources, such as a GPU."""

    address: str | None = None
    needs: dict[str, float] | None = None

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> "RayProcess":
        passed_on = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        log.write_bytes(b"")  # it may wait for its machine
        task = connect(self.address).remote(_run).options(scheduling_strategy="SPREAD", **self.needs or {})
        return RayProcess(self.address, task.remote(arguments, passed_on | environment, project_folder(), log))


class RayProcess:
    """A process that a task of Ray's waits for: it ends with the task. One whose machine is lost is started anew on
    another, and goes on."""

    def __init__(self, address: str | None, answer: object):
        self._ray, self._answer = connect(address), answer
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self) -> int:
        code = self._look(None)
        assert code is not None  # it has ended
        return code

    def kill(self) -> None:
        self._ray.cancel(self._answer, force=True)

    def _look(self, seconds: float | None) -> int | None:
        if self._ray.wait([self._answer], timeout=seconds)[0]:
            try:
                self.returncode = self._ray.get(self._answer)
            except self._ray.exceptions.RayError:  # cancelled, or lost too often
                self.returncode = -1
        return self.returncode


def _run(arguments: list[str], environment: dict[str, str], folder: Path, log: Path) -> int:
    """A Python process of so many arguments on Ray's machine; its exit code."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | environment | {ENDS_WITH_PARENT: "1"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        return process.wait()
