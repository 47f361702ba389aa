"""Points on the machines of a Ray cluster."""

import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from partcraft_kedro.cluster import connect
from partcraft_kedro.machines import shared_variables
from partcraft_kedro.project import project_folder
from partcraft_kedro.stopping import ENDS_WITH_PARENT
from partcraft_kedro.sweeps.processes import Machine

_logger = logging.getLogger(__name__)
_PAUSE = 0.2  # seconds between looks whether a point has ended
_RESOURCES = {"num_gpus": "GPU", "num_cpus": "CPU"}  # how machines call what tasks need


@dataclass(frozen=True)
class RayMachine(Machine):
    """One of a cluster's, or a share of it; needs: of Ray's resources, such as a GPU."""

    address: str | None = None
    needs: dict[str, float] = field(default_factory=dict)

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> "RayProcess":
        log.write_bytes(b"")  # it may wait for its machine
        task = connect(self.address).remote(_run).options(scheduling_strategy="SPREAD", **self.needs)
        answer = task.remote(arguments, shared_variables() | environment, project_folder(), log)
        return RayProcess(self, answer, log)


class RayProcess:
    """A process that a task of Ray's waits for: it ends with the task. One whose machine is lost is started anew on
    another, and goes on; where Ray gives up, or no other would do, it has failed, and its log says so."""

    def __init__(self, machine: RayMachine, answer: object, log: Path):
        self._ray, self._needs = connect(machine.address), machine.needs
        self._answer, self._log = answer, log
        self._killed = False
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._ray.wait([self._answer], timeout=0)[0]:
            try:
                self.returncode = self._ray.get(self._answer)
            except self._ray.exceptions.RayTaskError as error:  # the project's folder is not there, or its Python
                self._fail("cannot begin the point", error.cause)
            except self._ray.exceptions.RayError as error:
                self._fail("is lost", error)
        elif self.returncode is None and not self._killed and not self._has_a_place():
            self._ray.cancel(self._answer, force=True)
            self._fail("is lost", "none that could run it is left")
        return self.returncode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(_PAUSE)
        return code

    def kill(self) -> None:
        self._killed = True
        self._ray.cancel(self._answer, force=True)

    def _has_a_place(self) -> bool:
        """Whether a machine is there on which it runs, or could."""
        there = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needed = {_RESOURCES[name]: count for name, count in self._needs.items()}
        return any(all(has.get(name, 0) >= count for name, count in needed.items()) for has in there)

    def _fail(self, what: str, reason: object) -> None:
        """Its log then says what became of the machine, unless it was killed."""
        self.returncode = -1
        if self._killed:
            return
        in_one_line = " ".join(str(reason).split())[:200].rstrip(".")
        told = f"Ray's machine {what} ({in_one_line}): the same command goes on."
        _logger.warning("%s: %s", self._log.parent.name, told)
        with self._log.open("a") as log:
            log.write(f"{told}\n")


def _run(arguments: list[str], environment: dict[str, str], folder: Path, log: Path) -> int:
    """A Python process of so many arguments on Ray's machine; its exit code."""
    with log.open("ab") as output:
        if log.stat().st_size:  # an earlier attempt's
            output.write(f"Ray's machine is lost: going on on {socket.gethostname()}.\n".encode())
            output.flush()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | environment | {ENDS_WITH_PARENT: "1"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        return process.wait()
