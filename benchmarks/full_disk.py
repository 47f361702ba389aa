"""Fill the disk in each node of `kedro run --env=test`, make space, go on, and compare with a run that had space.

    python benchmarks/full_disk.py [--on data mlflow both] [--rooms 0 100] [--nodes ...]    # root on Linux

The data folder, MLflow's database and artifacts, or both lie on a tmpfs. As soon as a node begins, it is made as small
as what is on it and the room, in KiB. The run must end in one sentence that names what cannot be written, with exit
code 1 and nothing half-written; or well, if it needed no more. Then the tmpfs is large again and the same command goes
on to the next node. In the end every file of the data folder is compared. Prints what was told in each stage, and how
many files were compared and differed; exit code 1 if anything was wrong.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from runs import PROJECT, STAGE_OF, STAGES, Run, contents, differing, table

_LARGE = 2**28  # bytes


class Disk:
    """A tmpfs that can be filled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _mount(self, *options: str) -> int:
        return subprocess.run(["mount", *options, str(self.folder)], stderr=subprocess.DEVNULL).returncode

    def fill(self, room: int = 0) -> None:
        """Leave `room` bytes; what is written meanwhile is no matter."""
        while True:
            status = os.statvfs(self.folder)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            if self._mount("-o", f"remount,size={max(used + room, status.f_frsize)}") == 0:
                return

    def make_space(self) -> None:
        self._mount("-o", f"remount,size={_LARGE}")


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """Raises OSError where a tmpfs cannot be mounted."""
    folder.mkdir(parents=True)
    disk = Disk(folder)
    if disk._mount("-t", "tmpfs", "-o", f"size={_LARGE}", "tmpfs") != 0:
        raise OSError("a tmpfs cannot be mounted")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def wrongs(run: Run, code: int, data: Path) -> list[str]:
    """What is wrong with how a run on a full disk ended."""
    last = run.output.strip().splitlines()[-1]
    wrong = []
    if code != 1 or "Traceback" in run.output or not last.startswith("Error: The disk is full, "):
        wrong.append(f"{run.node} ended with {code}:\n{run.output}")
    wrong += [f"{run.node} left {path}" for path in data.rglob(".*.partial*")]
    return wrong


def fill_in_turn(
    disk: Disk, place: Path, on: str, nodes: list[str], rooms: list[int], project: Path = PROJECT
) -> tuple[Counter, list[str]]:
    """Returns what was told, by stage and sentence, and what was wrong."""
    there = place_on(disk, on)
    told: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for node in tqdm(nodes, desc=f"{on} on a full disk", unit="node"):
        for room in rooms:
            run = Run(place, project=project, **there)
            run.wait_until_told(f"Running node: {node}")
            disk.fill(room)
            code = run.wait()
            disk.make_space()
            if code:
                told[run.stage, run.output.strip().splitlines()[-1]] += 1
                wrong += wrongs(run, code, data_on(disk, place, on))
    Run(place, project=project, **there).finish()
    return told, wrong


def place_on(disk: Disk, on: str) -> dict[str, str]:
    """The environment that puts data, MLflow or both on a disk."""
    data = {"PARTCRAFT_DATA": str(disk.folder / "data")}
    mlflow = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{disk.folder}/mlflow.db",
        "PARTCRAFT_ARTIFACTS": str(disk.folder / "mlartifacts"),
    }
    return {"data": data, "mlflow": mlflow, "both": data | mlflow}[on]


def data_on(disk: Disk, place: Path, on: str) -> Path:
    return Path(place_on(disk, on).get("PARTCRAFT_DATA", place / "data"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", choices=("data", "mlflow", "both"), default=["data", "mlflow", "both"])
    parser.add_argument("--rooms", nargs="+", type=int, default=[0, 100], help="KiB that are left")
    parser.add_argument("--nodes", nargs="+", choices=STAGE_OF, default=list(STAGE_OF))
    arguments = parser.parse_args()
    rooms, wrong, rows = [2**10 * room for room in arguments.rooms], [], []
    with tempfile.TemporaryDirectory() as temporary:
        Run(Path(temporary) / "alone").finish()
        expected, compared, differ = contents(Path(temporary) / "alone" / "data"), 0, []
        for on in arguments.on:
            place = Path(temporary) / on
            with mounted(place / "disk") as disk:
                told, wrong_here = fill_in_turn(disk, place, on, arguments.nodes, rooms)
                found = contents(data_on(disk, place, on))
            wrong += wrong_here
            compared += len(found)
            differ += [f"{on}: {path}" for path in differing(found, expected)]
            of_stage = {stage: [key for key in told if key[0] == stage] for stage in ("start", *STAGES)}
            for stage, keys in of_stage.items():
                runs = sum(told[key] for key in keys)
                rows.append((on, stage, runs, keys[0][1].replace(temporary, "…") if keys else ""))
    print(table(["full disk under", "stage", "runs that it ended", "for example"], rows))
    print(f"\n{compared} files compared, {len(differ)} differ; {len(wrong)} things wrong")
    print("\n".join([*differ, *wrong]))
    sys.exit(bool(differ or wrong))


if __name__ == "__main__":
    main()
