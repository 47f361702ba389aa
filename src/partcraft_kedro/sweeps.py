"""Grids of runs: every point is a `kedro run` of its own, and a child of one MLflow run.

A sweep keeps its books in `08_reporting/<dataset>/sweeps/<name>-<fingerprint>/`, a folder for each point. A point is
done when its `point.json` is there; one that failed or was killed has none, and is run again by the same command.
Points share the stages that they have in common, through the stages' own folders.
"""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.validation import ParameterValidator
from omegaconf import OmegaConf
from pydantic import ValidationError
from tqdm import tqdm

from partcraft_kedro.errors import UserError, unknown
from partcraft_kedro.files import write_file, write_json
from partcraft_kedro.grid import Point, points_of
from partcraft_kedro.options import SweepOptions, flatten, refuse_unknown_groups
from partcraft_kedro.pipelines.experiments.pipeline import SWEEPS
from partcraft_kedro.stages import Workfolder
from partcraft_kedro.stopping import ENDS_WITH_PARENT

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A sweep that was found and checked.

    env, parameters: as `kedro run` has them, for all points; options: all options of each point, by groups;
    experiment: the id of MLflow's; folder: where sweeps keep their books.
    """

    name: str
    sweep: SweepOptions
    env: str | None
    parameters: dict[str, Any]
    points: list[Point]
    options: list[dict[str, Any]]
    experiment: str
    folder: Path

    def key(self) -> dict[str, Any]:
        """What the sweep is: every option of every point."""
        points = {point.name: flatten(options) for point, options in zip(self.points, self.options, strict=True)}
        seen = {"env": self.env, "sweep": self.sweep.model_dump(mode="json"), "points": points}
        return {"stage": self.name, "version": 1, "seen": seen}


def plan_sweep(name: str, grid: dict[str, list], seeds: list[int], env: str | None, parameters: dict[str, Any]) -> Plan:
    """Find and check a sweep.

    grid: options and their values; empty: the sweep called `name` in conf/. seeds: empty: the sweep's own.
    Raises UserError if there is no such sweep, if an option does not exist or has a wrong value, or if two points are
    the same.
    """
    with KedroSession.create(env=env, runtime_params=parameters) as session:
        context = session.load_context()
        sweep = SweepOptions(grid=grid) if grid else _find_sweep(context, name)
        if seeds:
            sweep = sweep.model_copy(update={"seeds": seeds})
        if "train.seed" in {*sweep.grid, *sweep.options}:
            raise UserError("train.seed is what --seeds is for: leave it out of the grid and the options of a sweep.")
        points = points_of(sweep)
        raw = context.config_loader["parameters"]
        options = [_check(raw, point) for point in points]
        experiment = context.mlflow.tracking.experiment._experiment.experiment_id
        folder = context.catalog.load("params:stages").layer("08_reporting") / "sweeps"
    for i, point in enumerate(points):
        for j in range(i):
            if points[j].name == point.name or options[j] == options[i]:
                raise UserError(f"Points of the sweep repeat each other: {points[j].name} and {point.name}.")
    return Plan(name, sweep, env, parameters, points, options, experiment, folder)


def run_sweep(plan: Plan, parallel: int | None) -> Path:
    """Run what is not done yet of a sweep, then its report; returns the sweep's folder.

    parallel: how many points run at once; none: one on each GPU, else one.
    Raises UserError if points failed, after all others were run.
    """
    name, points, first = plan.name, plan.points, plan.options[0]
    with Workfolder(plan.folder, plan.key()) as stage:
        if stage.finished:
            return stage.folder
        tracker = _Tracker(plan, stage.folder)
        command = _Command(plan.env, plan.parameters, f"/sweeps/{stage.folder.name}")
        processes = []
        for point, options in zip(points, plan.options, strict=True):
            facts = {
                "sweep": name,
                "setting": point.setting,
                "option": ", ".join(plan.sweep.grid),
                **options["train"].model_dump(include={"seed", "method", "attention_weight", "steps"}),
            }
            process = _Process(point, stage.folder / point.name, facts, command, tracker)
            if not process.finished:
                processes.append(process)
        tracker.forget_unfinished(stage.folder)
        try:
            failed = _run_all(processes, len(points), parallel, _gpus(first["base"].device), f"sweep {name}")
            if len(failed) < len(points):
                _report(name, stage.folder, command, tracker.run_id)
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


def _find_sweep(context: KedroContext, name: str) -> SweepOptions:
    """A sweep that `conf/<env>/sweeps.yml` describes."""
    known = context.config_loader["sweeps"]
    if name not in known:
        raise unknown("sweep", name, known)
    try:
        return SweepOptions.model_validate(known[name])
    except ValidationError as error:
        raise UserError(f"The sweep {name!r} in conf/ is not one: {' '.join(str(error).split())}") from error


def _run_all(
    processes: "list[_Process]", total: int, parallel: int | None, gpus: list[str], title: str
) -> "list[_Process]":
    """Run processes, some at once; returns those that failed. Whatever ends it ends them too."""
    parallel = parallel or max(1, len(gpus))
    if gpus:
        free = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(parallel)]
    elif parallel > 1 and "OMP_NUM_THREADS" not in os.environ:  # more threads than cores: each of them crawls
        free = [{"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // parallel))}] * parallel
    else:
        free = [{}] * parallel
    waiting, running, failed = list(processes), [], []
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


def _report(name: str, folder: Path, command: "_Command", run_id: str) -> None:
    """The sweep's tables and figures, into its folder and its MLflow run."""
    log = folder / "report.txt"
    outputs = ["sweep_summary", "experiments_page"]
    if name in SWEEPS:
        outputs.append(f"{name}_figure")
    if name == "methods":
        outputs.append("learning_figure")
    run = {"pipelines": "experiments", "to_outputs": ",".join(outputs)}
    process = command.start(run, "", {}, {"MLFLOW_RUN_ID": run_id, "PARTCRAFT_RUN_NAME": folder.name}, log)
    if process.wait() != 0:
        raise UserError(f"The sweep's report failed: {log} has the reason; run the same command again.")


def _check(raw: dict, point: Point) -> dict[str, Any]:
    """All options of a point, as `kedro run` would have them."""
    refuse_unknown_groups(option.partition(".")[0] for option in point.options)
    return ParameterValidator(dict(pipelines)).validate_raw_params(_with_options(raw, point.options))


def _with_options(tree: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """A tree of options, with those of dotted names put in."""
    merged = OmegaConf.create(tree)
    for option, value in options.items():
        OmegaConf.update(merged, option, value, force_add=True)
    return OmegaConf.to_container(merged)


def _gpus(device: str) -> list[str]:
    """The GPUs to spread points over, by number: none where the user chose a device for all of them."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


class _Tracker:
    """The sweep's MLflow run, gone on with if there is one, and those of its points."""

    def __init__(self, plan: Plan, folder: Path):
        import mlflow
        from mlflow.exceptions import MlflowException

        self._client, self._plan = mlflow.MlflowClient(), plan
        book = folder / "sweep.json"
        known = json.loads(book.read_text())["run_id"] if book.exists() else None
        try:
            if known is not None:
                self.run_id: str = known
                self._client.update_run(known, status="RUNNING")
                return
        except MlflowException:
            _logger.warning("MLflow no longer knows run %s of the sweep, nor those of its finished points.", known)
        run = self._client.create_run(plan.experiment, run_name=folder.name, tags={"sweep": plan.name})
        self.run_id = run.info.run_id
        for option, values in plan.sweep.grid.items():
            self._client.log_param(self.run_id, f"grid.{option}", str(values))
        self._client.log_param(self.run_id, "grid.seeds", str(plan.sweep.seeds))
        write_json(book, {"run_id": self.run_id})

    def forget_unfinished(self, folder: Path) -> None:
        """Delete the runs of attempts that were killed or failed: their points are run again."""
        done = {json.loads(path.read_text())["run_id"] for path in folder.glob("*/point.json")}
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        for run in self._client.search_runs([self._plan.experiment], query, max_results=10_000):
            if run.info.run_id not in done:
                self._client.delete_run(run.info.run_id)

    def begin(self, point: Point) -> str:
        """A child run for a point; returns its id."""
        tags = {"mlflow.parentRunId": self.run_id, "sweep": self._plan.name, "setting": point.setting}
        return self._client.create_run(self._plan.experiment, run_name=point.name, tags=tags).info.run_id

    def adapter_version(self, run_id: str) -> str:
        """Of the adapter that a point's run saved."""
        return self._client.get_run(run_id).data.tags["adapter_version"]

    def end(self, status: str, run_id: str | None = None) -> None:
        self._client.set_terminated(run_id or self.run_id, status)


@dataclass(frozen=True)
class _Command:
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
        config, content = log.with_suffix(".yml"), {"run": run | {"params": _with_options(self.parameters, options)}}
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


class _Process:
    """`kedro run` for one point, in a process of its own, its output in `log`.

    facts: what its book tells of it beside its runs.
    """

    def __init__(self, point: Point, folder: Path, facts: dict[str, Any], command: _Command, tracker: _Tracker):
        self.point, self.log = point, folder / "log.txt"
        self._book, self._facts = folder / "point.json", facts
        self._command, self._tracker = command, tracker

    @property
    def finished(self) -> bool:
        return self._book.exists()

    def start(self, environment: dict[str, str]) -> None:
        self.failed = False
        self._run_id = self._tracker.begin(self.point)
        named = {"MLFLOW_RUN_ID": self._run_id, "PARTCRAFT_RUN_NAME": self.point.name}
        self._process = self._command.start(
            {"pipelines": "point"}, f"/{self.point.name}", self.point.options, environment | named, self.log
        )

    def ended(self) -> bool:
        """Whether the run is over; if it went well, its book is then written."""
        if self._process.poll() is None:
            return False
        try:
            if self._process.returncode == 0:
                runs = {"run_id": self._run_id, "adapter_version": self._tracker.adapter_version(self._run_id)}
                write_json(self._book, {"point": self.point.name, **self._facts, **runs})
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
