"""Train with torchrun in one, two and four processes, kill one of two, and compare.

    python benchmarks/ranks.py

Twenty steps of `kedro run --env=test` at a batch of 4, from the same pictures, parts and latents. Prints for each
number of processes the largest relative difference between its losses and those of one; for each process that was
killed after a checkpoint how long the others took to end, and, after the same command went on, how many files have
other bytes than two processes leave that were never killed. Exit code 1 if some file has, or if losses differ by more
than a thousandth.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from runs import PROJECT, contents, differing, table

OPTIONS = "train.steps=20,train.batch_size=4,train.micro_batch=1,train.checkpoint_every=5,train.log_every=1"


def start(place: Path, processes: int, pipeline: str = "--tags=train") -> subprocess.Popen:
    """`kedro run` in so many processes; its output goes to `<place>/log.txt`."""
    environment = {
        "PARTCRAFT_DATA": str(place / "data"),
        "PARTCRAFT_ARTIFACTS": str(place / "mlartifacts"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "-m", "partcraft_kedro"]
    with (place / "log.txt").open("a") as log:
        return subprocess.Popen(
            [*launch, "run", "--env=test", pipeline, "--params", OPTIONS],
            cwd=PROJECT,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(process: subprocess.Popen, place: Path) -> None:
    if process.wait() != 0:
        raise SystemExit(f"A run failed:\n{(place / 'log.txt').read_text(errors='replace')}")


def losses(place: Path) -> pd.DataFrame:
    (path,) = place.glob("data/06_models/test/training-*/losses.parquet")
    return pd.read_parquet(path)[["loss", "loss_ldm", "loss_attention"]]


def difference(found: pd.DataFrame, expected: pd.DataFrame) -> float:
    return ((found - expected).abs() / expected).max(axis=None)


def kill(process: subprocess.Popen, place: Path, rank: int) -> float:
    """Kill a rank once there is a checkpoint; returns the seconds until all have ended."""
    while not any(place.glob("data/06_models/test/training-*/checkpoint.safetensors")):
        if process.poll() is not None:
            raise SystemExit("It ended before it could be killed.")
        time.sleep(0.05)
    ranks = psutil.Process(process.pid).children()
    next(each for each in ranks if each.environ()["RANK"] == str(rank)).kill()
    begin = time.perf_counter()
    process.wait()
    psutil.wait_procs(ranks)
    return time.perf_counter() - begin


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        alone = Path(temporary) / "alone"
        alone.mkdir()
        finish(start(alone, 1, "--pipelines=train"), alone)

        def begun(name: str, processes: int) -> tuple[Path, subprocess.Popen]:
            place = Path(temporary) / name
            shutil.copytree(alone / "data", place / "data", ignore=shutil.ignore_patterns("06_models"))
            return place, start(place, processes)

        for processes in (2, 4):
            place, process = begun(str(processes), processes)
            finish(process, place)
            rows.append((f"{processes} processes", f"{difference(losses(place), losses(alone)):.1e}", "", ""))
        expected = contents(Path(temporary) / "2" / "data")
        wrong = any(float(row[1]) > 1e-3 for row in rows)
        for rank in (0, 1):
            place, process = begun(f"killed_{rank}", 2)
            seconds = kill(process, place, rank)
            finish(start(place, 2), place)
            differ = differing(contents(place / "data"), expected)
            wrong = wrong or bool(differ)
            rows.append((f"2 processes, rank {rank} killed", "", f"{seconds:.0f} s", str(len(differ))))
    print(table(["training", "losses differ by", "all ended after", "files that differ"], rows))
    sys.exit(wrong)


if __name__ == "__main__":
    main()
