"""Work on the machines of a Ray cluster, a worker on each GPU or, where there are none, on each machine.

Machines share the folder of data, which is checked: where a picture lies is told, and never the picture. A worker that
is lost is done without, and what it was at is given to another: files are written whole or not at all.
"""

import logging
import os
import re
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from partcraft_kedro.errors import UserError, in_one_line
from partcraft_kedro.files import OWN_PARTIALS
from partcraft_kedro.machines import installed, other_version, shared_variables

_logger = logging.getLogger(__name__)
_MOST = 256  # items a worker is given at once: what it decodes ahead it does within them
_PATIENCE = 60.0  # seconds without a worker, after which it is told what is waited for
_ANSWER = 120.0  # seconds in which machines are to say what they have: the first time they import the project


def connect(address: str | None) -> Any:
    """Ray, connected to the cluster. Raises UserError if Ray is not installed or the cluster does not answer."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(
            "compute.engine=ray needs Ray: pip install --constraint constraints.txt --editable '.[ray]'."
        ) from error
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_termination = signal.getsignal(signal.SIGTERM)
    where = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if direct := re.fullmatch(r"([^:/]+):(\d+)", where):  # Ray itself would try for minutes
            socket.create_connection((direct[1], int(direct[2])), timeout=5).close()
        ray.init(address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # of the network, of versions, of an address that is none: each of a kind of its own
        reason = in_one_line(error)[:200]
        raise UserError(
            f"Ray at {where or 'this machine'} does not answer ({reason.rstrip('.')}): start it with `ray start "
            "--head` and give its address, compute.address=host:port."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, on_termination)  # Ray's own would end the run without an orderly end
    return ray


def usable_machines(address: str | None, root: Path) -> list[dict[str, Any]]:
    """The machines of the cluster, as Ray describes them, each of which was asked whether it sees the folder of data
    and has this code and these packages.

    Raises UserError, naming a machine that does not, or that does not answer.
    """
    ray = connect(address)
    root.mkdir(parents=True, exist_ok=True)
    token = root / f".cluster-{uuid.uuid4().hex}"
    token.write_text(token.name)
    here = installed()
    try:
        asked = {
            _on(ray.remote(differs), node, num_cpus=0).remote(token, here): node
            for node in ray.nodes()
            if node["Alive"]
        }
        _, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
        if late:
            raise UserError(
                f"Ray's machine {asked[late[0]]['NodeManagerHostname']} has not answered for {_ANSWER:.0f} seconds: "
                f"see what it waits for, such as a disk at {root} that hangs, or end Ray on it with `ray stop`."
            )
        usable = []
        for answer, node in asked.items():
            name = node["NodeManagerHostname"]
            try:
                different = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                different = f"cannot load this project ({in_one_line(error.cause)})"
            except ray.exceptions.RayError:
                _logger.warning("Ray's machine %s is gone.", name)
                continue
            if different:
                raise UserError(
                    f"Ray's machine {name} {different}: all machines need the same folder of data at {root}, the same "
                    "code and the same packages."
                )
            usable.append(node)
        return usable
    finally:
        token.unlink()


def differs(token: Path, expected: dict[str, str]) -> str | None:
    """In what this machine is not as the driver's, as the rest of a sentence; None: in nothing.

    token: a file that the driver has written, which holds its own name; expected: what is installed there.
    """
    try:
        seen = token.read_text() == token.name
    except OSError:
        seen = False
    if not seen:
        return "does not see what is written to it here"
    return other_version(expected)


class Workers:
    """Processes on the cluster's machines, which hold on to their GPUs until they are released."""

    def __init__(self, address: str | None, device: str, root: Path):
        """device: `base.device`; root: the folder of data. Raises UserError as `usable_machines`."""
        nodes = usable_machines(address, root)
        self._ray = connect(address)
        worker, variables = self._ray.remote(_Worker), shared_variables()
        self._alive = [_on(worker, node, **needs).remote(variables) for node, needs in places(nodes, device)]

    def release(self) -> None:
        for worker in self._alive:
            self._ray.kill(worker)

    def map(self, open_work: Callable[[], Callable[..., object]], items: Any, size: int, title: str) -> None:
        """As `Engine.map`. Raises UserError as the work does, and if every worker is lost."""
        left, recipe = _Ranges(len(items), size), self._ray.put(open_work)
        busy = {worker.open.remote(recipe): (worker, range(0)) for worker in self._alive}
        idle: list[Any] = []
        with tqdm(total=-(-len(items) // size), desc=title, unit="shard") as progress:
            while left or any(part for _, part in busy.values()):
                while idle and left:
                    worker, part = idle.pop(), left.take(len(self._alive))
                    busy[worker.do.remote(items[part.start : part.stop], part.start)] = worker, part
                if not busy:
                    raise UserError(
                        "No worker of Ray's is left: see what ended its machines, and run the same command again; "
                        "finished work is kept."
                    )
                for worker, part, wrong in self._answers(busy):
                    if worker not in self._alive:
                        left.give_back(part)
                    elif wrong:
                        raise UserError(wrong)
                    else:
                        idle.append(worker)
                        progress.update(-(-len(part) // size))

    def _answers(self, busy: dict[Any, tuple[Any, range]]) -> Iterator[tuple[Any, range, str | None]]:
        """Waits for workers to be done, which are then no longer busy; those that were lost are no longer alive."""
        done, _ = self._ray.wait(list(busy), timeout=_PATIENCE)
        if not done and not any(part for _, part in busy.values()):
            _logger.warning("Waiting for Ray's workers: they start, or its GPUs or machines are all taken.")
        for answer in done:
            worker, part = busy.pop(answer)
            wrong = None
            try:
                wrong = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError:  # a mistake in the work itself
                raise
            except self._ray.exceptions.RayError as error:
                _logger.warning("Ray lost a worker, the others go on (%s).", in_one_line(error)[:200])
                self._alive.remove(worker)
            yield worker, part, wrong


def places(nodes: list[dict[str, Any]], device: str) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """For each worker its machine and what it needs of it: a GPU or, if none has one or none is asked for, all
    processors.

    nodes: as `usable_machines` returns them; device: `base.device`.
    Raises UserError if there is no place, or if the device is one GPU of several.
    """
    from partcraft_kedro.devices import refuse_one_of_several  # slow to import

    refuse_one_of_several(device, "Ray's workers")
    gpus, cpus = ([int(node["Resources"].get(kind, 0)) for node in nodes] for kind in ("GPU", "CPU"))
    found: list[tuple[dict[str, Any], dict[str, float]]] = []
    for node, gpu, cpu in zip(nodes, gpus, cpus, strict=True):
        if any(gpus) and device in ("auto", "cuda"):
            found += [(node, {"num_gpus": 1, "num_cpus": cpu // max(1, gpu)})] * gpu
        elif cpu:
            found.append((node, {"num_cpus": cpu}))
    if device == "cuda" and not any(gpus):
        raise UserError(
            "base.device='cuda' is on none of Ray's machines: give base.device=cpu, or start them with GPUs."
        )
    if not found:
        raise UserError("Ray's machines have neither GPUs nor processors: start them with others than --num-cpus=0.")
    return found


@dataclass
class _Ranges:
    """What is left of so many items, in whole shards."""

    total: int
    size: int
    start: int = 0
    returned: list[range] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.returned) or self.start < self.total

    def take(self, workers: int) -> range:
        """The next ones: at first many, then fewer, so that all workers end at about the same time."""
        if self.returned:
            return self.returned.pop()
        fair = min(_MOST, (self.total - self.start) // (4 * workers))
        stop = min(self.start + max(1, fair // self.size) * self.size, self.total)
        taken, self.start = range(self.start, stop), stop
        return taken

    def give_back(self, part: range) -> None:
        if part:
            self.returned.append(part)


class _Worker:
    """Does ranges of a stage's work; returns what a user is to be told, which Ray would bury in a traceback."""

    _work: Callable[..., object] | None

    def __init__(self, variables: dict[str, str]):
        """variables: of the driver's environment, before anything is imported that reads them."""
        os.environ.update(variables)

    def open(self, open_work: Callable[[], Callable[..., object]]) -> str | None:
        # A worker that Ray gave up may still be writing what another was given.
        os.environ[OWN_PARTIALS] = f"-{uuid.uuid4().hex[:8]}"
        self._work = None  # whatever it holds must not be in memory beside what comes
        try:
            self._work = open_work()
        except UserError as error:
            return str(error)
        return None

    def do(self, items: Any, first: int) -> str | None:
        assert self._work is not None  # opened before
        try:
            self._work(items, first=first)
        except UserError as error:
            return str(error)
        return None


def _on(remote: Any, node: dict[str, Any], **needs: float) -> Any:
    """A task or actor that runs on one machine and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), **needs)
