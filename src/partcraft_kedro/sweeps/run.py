"""Running what is not done yet of a sweep."""

import os
import time
from itertools import takewhile
from pathlib import Path

from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.options import SweepOptions
from partcraft_kedro.pipelines.experiments.nodes import SWEEPS
from partcraft_kedro.stages import Workfolder
from partcraft_kedro.sweeps.book import Book
from partcraft_kedro.sweeps.plan import Plan
from partcraft_kedro.sweeps.processes import Command, Machine, Process
from partcraft_kedro.sweeps.tracker import Tracker


def run_sweep(plan: Plan, parallel: int | None, only: tuple[int, int] | None = None) -> Path | None:
    """Run what is not done yet of a sweep, then its report; returns the sweep's folder, or none if points are left that
    others are to run.

    Several commands may run one sweep at once: each point is run by one of them, and the last one reports.
    parallel: how many points run at once; none: one on each GPU, else one; only: (3, 8) is the third of eight shares.
    Raises UserError if points failed, after all others were run.
    """
    name, share, of = plan.name, *(only or (1, 1))
    points = plan.points[share - 1 :: of]
    with Workfolder(plan.folder, plan.key()) as stage:
        if stage.finished:
            return stage.folder
        book = Book(stage.folder)
        tracker = Tracker(book, plan.experiment, plan.title)
    command = Command(plan.env, plan.parameters, f"/sweeps/{stage.folder.name}")
    processes = [Process(point, book, command, tracker) for point in points if not book.is_done(point)]
    try:
        machines = _machines(plan, processes, parallel, command, stage.folder)
        failed = _run_all(processes, len(points), machines, f"sweep {name}")
        with Workfolder(plan.folder, plan.key()) as stage:
            left = [point for point in plan.points if not book.is_done(point)]
            if stage.finished or (left and not failed):
                return stage.folder if stage.finished else None
            if len(left) < len(plan.points):
                _report(plan, stage.folder, command, tracker.run_id)
            if not left:
                stage.finish()
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
    return stage.folder


def _machines(
    plan: Plan, processes: list[Process], parallel: int | None, command: Command, folder: Path
) -> list[Machine]:
    """One for each point that runs at once: GPUs of this machine, or of Ray's machines when these have what the points
    share."""
    compute, device = plan.options[0]["compute"], plan.options[0]["base"].device
    if compute.engine == "ray":
        from partcraft_kedro.cluster import places, usable_machines
        from partcraft_kedro.sweeps.remote import RayMachine

        found = [needs for _, needs in places(usable_machines(compute.address, plan.folder), device)]
        if processes:
            _make_what_is_shared(plan, command, folder)
        return [RayMachine(address=compute.address, needs=found[i % len(found)]) for i in range(parallel or len(found))]
    gpus = _gpus(device)
    parallel = parallel or max(1, len(gpus))
    if gpus:
        return [Machine({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]}) for i in range(parallel)]
    if parallel > 1 and "OMP_NUM_THREADS" not in os.environ:  # more threads than cores: each of them crawls
        return [Machine({"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // parallel))})] * parallel
    return [Machine()] * parallel


def _run_all(processes: list[Process], total: int, machines: list[Machine], title: str) -> list[Process]:
    """Run processes, one on each machine; returns those that failed. Whatever ends it ends them too."""
    free, waiting = list(machines), list(processes)
    failed: list[Process] = []
    running: list[tuple[Process, Machine]] = []
    with tqdm(total=total, initial=total - len(processes), desc=title, unit="point", smoothing=0) as progress:
        try:
            while waiting or running:
                if waiting and free:  # one at a time: versions are named after the time of start
                    process = waiting.pop(0)
                    if not process.take():  # another command is at work on it: see later what became of it
                        waiting.append(process)
                    elif process.is_done():
                        process.let_go()
                        progress.update()
                    else:
                        machine = free.pop()
                        process.start(machine)
                        running.append((process, machine))
                time.sleep(0.5)
                for process, machine in list(running):
                    if process.ended():
                        running.remove((process, machine))
                        free.append(machine)
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


def _make_what_is_shared(plan: Plan, command: Command, folder: Path) -> None:
    """Stages that all points have in common, once and by all workers: else points would wait for one of them."""
    if outputs := shared_outputs(plan.sweep):
        log = folder / "shared.txt"
        run = {"pipelines": "point", "to_outputs": ",".join(outputs)}
        process = command.start(run, "", plan.points[0].options, {"PARTCRAFT_RUN_NAME": plan.title}, log, Machine())
        if process.wait() != 0:
            raise UserError(
                f"What the points of {plan.name} share failed: {log} has the reason; mend it, and run again."
            )


def shared_outputs(sweep: SweepOptions) -> list[str]:
    """The last datasets before training that are the same in all points."""
    varied = {option.partition(".")[0] for option in sweep.grid}
    chain = {"images": "records", "features": "features", "parts": "prompts"}
    shared = [made for _, made in takewhile(lambda stage: stage[0] not in varied, chain.items())]
    return shared[-1:] + (["latents"] if shared and "base" not in varied else [])


def _report(plan: Plan, folder: Path, command: Command, run_id: str) -> None:
    """The sweep's tables and figures, into its folder and its MLflow run."""
    log = folder / "report.txt"
    figure = f"{plan.name}_figure" if plan.name in SWEEPS else "own_sweep_figure"
    outputs = ["sweep_summary", "experiments_page", "learning_figure", figure]
    run = {"pipelines": "experiments", "to_outputs": ",".join(outputs)}
    process = command.start(run, "", {}, {"MLFLOW_RUN_ID": run_id, "PARTCRAFT_RUN_NAME": plan.title}, log, Machine())
    if process.wait() != 0:
        raise UserError(f"The sweep's report failed: {log} has the reason; run the same command again.")


def _gpus(device: str) -> list[str]:
    """The GPUs to spread points over, by number: none where the user chose a device for all of them."""
    if device not in ("auto", "cuda"):
        return []
    from partcraft_kedro.devices import visible_gpus

    return visible_gpus()
