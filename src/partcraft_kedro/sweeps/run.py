"""Running what is not done yet of a sweep."""

import os
import time
from pathlib import Path

from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.pipelines.experiments.nodes import SWEEPS
from partcraft_kedro.stages import Workfolder
from partcraft_kedro.sweeps.book import Book
from partcraft_kedro.sweeps.plan import Plan
from partcraft_kedro.sweeps.processes import Command, Process
from partcraft_kedro.sweeps.tracker import Tracker


def run_sweep(plan: Plan, parallel: int | None) -> Path:
    """Run what is not done yet of a sweep, then its report; returns the sweep's folder.

    parallel: how many points run at once; none: one on each GPU, else one.
    Raises UserError if points failed, after all others were run.
    """
    name, points, first = plan.name, plan.points, plan.options[0]
    with Workfolder(plan.folder, plan.key()) as stage:
        if stage.finished:
            return stage.folder
        book = Book(stage.folder)
        tracker = Tracker(book, plan.experiment, plan.title)
        command = Command(plan.env, plan.parameters, f"/sweeps/{stage.folder.name}")
        processes = [Process(point, book, command, tracker) for point in points if not book.is_done(point)]
        tracker.forget_unfinished()
        try:
            failed = _run_all(processes, len(points), parallel, _gpus(first["base"].device), f"sweep {name}")
            if len(failed) < len(points):
                _report(plan, stage.folder, command, tracker.run_id)
        except BaseException:
            tracker.end("KILLED")
            raise
        tracker.end("FAILED" if failed else "FINISHED")
        if failed:
            logs = ", ".join(str(process.log) for process in failed)
            raise UserError(
                f"{len(failed)} of {len(points)} points of {name} failed, the others are done: read {logs}, then run "
                "the same command again for these alone."
            )
        stage.finish()
    return stage.folder


def _run_all(processes: list[Process], total: int, parallel: int | None, gpus: list[str], title: str) -> list[Process]:
    """Run processes, some at once; returns those that failed. Whatever ends it ends them too."""
    parallel = parallel or max(1, len(gpus))
    if gpus:
        free = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(parallel)]
    elif parallel > 1 and "OMP_NUM_THREADS" not in os.environ:  # more threads than cores: each of them crawls
        free = [{"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // parallel))}] * parallel
    else:
        free = [{}] * parallel
    waiting = list(processes)
    failed: list[Process] = []
    running: list[tuple[Process, dict[str, str]]] = []
    with tqdm(total=total, initial=total - len(processes), desc=title, unit="point", smoothing=0) as progress:
        try:
            while waiting or running:
                if waiting and free:  # one at a time: versions are named after the time of start
                    environment, process = free.pop(), waiting.pop(0)
                    process.start(environment)
                    running.append((process, environment))
                time.sleep(0.5)
                for process, environment in list(running):
                    if process.ended():
                        running.remove((process, environment))
                        free.append(environment)
                        failed += [process] if process.failed else []
                        progress.update()
                progress.set_postfix_str(
                    "; ".join(f"{process.point.name}: {process.doing()}" for process, _ in running)
                )
        except BaseException:
            for process, _ in running:
                process.kill()
            raise
    return failed


def _report(plan: Plan, folder: Path, command: Command, run_id: str) -> None:
    """The sweep's tables and figures, into its folder and its MLflow run."""
    log = folder / "report.txt"
    figure = f"{plan.name}_figure" if plan.name in SWEEPS else "own_sweep_figure"
    outputs = ["sweep_summary", "experiments_page", "learning_figure", figure]
    run = {"pipelines": "experiments", "to_outputs": ",".join(outputs)}
    process = command.start(run, "", {}, {"MLFLOW_RUN_ID": run_id, "PARTCRAFT_RUN_NAME": plan.title}, log)
    if process.wait() != 0:
        raise UserError(f"The sweep's report failed: {log} has the reason; run the same command again.")


def _gpus(device: str) -> list[str]:
    """The GPUs to spread points over, by number: none where the user chose a device for all of them."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
