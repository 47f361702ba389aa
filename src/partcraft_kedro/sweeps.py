"""Grids of runs: every point is a `kedro run` of its own, and a child of one MLflow run.

A sweep keeps its books in `08_reporting/<dataset>/sweeps/<name>-<fingerprint>/`, a folder for each point. A point is
done when its `point.json` is there; one that failed or was killed has none, and is run again by the same command.
Points share the stages that they have in common, through the stages' own folders.
"""

import json
import logging
import os
import signal
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

from partcraft_kedro.errors import UserError
from partcraft_kedro.grid import Point, points_of
from partcraft_kedro.options import SweepOptions, refuse_unknown_groups
from partcraft_kedro.pipelines.experiments.pipeline import SWEEPS
from partcraft_kedro.stages import Stage, write_file, write_json

_logger = logging.getLogger(__name__)
_PROJECT = Path(__file__).parents[2]


def find_sweep(context: KedroContext, name: str) -> SweepOptions:
    """A sweep that `conf/<env>/sweeps.yml` describes. Raises UserError if there is none of that name."""
    known = context.config_loader["sweeps"]
    if name not in known:
        raise UserError(f"There is no sweep {name!r} in conf/: it has {', '.join(known)}.")
    try:
        return SweepOptions(**known[name])
    except ValidationError as error:
        raise UserError(f"The sweep {name!r} in conf/ is not one: {' '.join(str(error).split())}") from error


def run_sweep(
    name: str,
    grid: dict[str, list],
    seeds: list[int],
    env: str | None,
    parameters: dict[str, Any],
    parallel: int | None,
) -> Path:
    """Run what is not done yet of a sweep, then its report; returns the sweep's folder.

    grid: options and their values; empty: the sweep called `name` in conf/. seeds: empty: the sweep's own.
    parameters: as `kedro run --params` has them, for all points. parallel: how many points run at once; none: one on
    each GPU, else one.
    Raises UserError if an option of the grid does not exist or has a wrong value, before anything runs, and, after
    all others were run, if points failed.
    """
    with KedroSession.create(_PROJECT, env=env, runtime_params=parameters) as session:
        context = session.load_context()
        sweep = SweepOptions(grid=grid) if grid else find_sweep(context, name)
        if seeds:
            sweep = sweep.model_copy(update={"seeds": seeds})
        points = points_of(sweep)
        raw = context.config_loader["parameters"]
        checked = [_check(raw, point) for point in points]
        tracker = _Tracker(context, name, sweep)
    first = checked[0]
    key = {"env": env, "sweep": sweep.model_dump(mode="json"), "parameters": _plain(raw)}
    with Stage(first["data"].layer("08_reporting") / "sweeps", name, version=1, options=key, inputs={}) as stage:
        if stage.finished:
            return stage.folder
        tracker.resume(stage.folder)
        command = _Command(env, parameters, f"/sweeps/{stage.folder.name}")
        processes = []
        for point, options in zip(points, checked, strict=True):
            facts = {
                "sweep": name,
                "setting": point.setting,
                "option": ", ".join(sweep.grid),
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
                f"{len(failed)} of {len(points)} points failed, the others are done: read {logs}, then run the same "
                "command again for these alone."
            )
        stage.finish()
    return stage.folder


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
                while waiting and free:
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
                process.stop()
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
    merged = OmegaConf.create(raw)
    refuse_unknown_groups(option.partition(".")[0] for option in point.options)
    for option, value in point.options.items():
        OmegaConf.update(merged, option, value, force_add=True)
    return ParameterValidator(dict(pipelines)).validate_raw_params(OmegaConf.to_container(merged))


def _plain(raw: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON has them; where data lie is no part of what a sweep is."""
    return {name: group for name, group in raw.items() if name != "data"}


def _gpus(device: str) -> list[str]:
    """The GPUs that points may run on, by number."""
    if device == "cpu":
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


class _Tracker:
    """The sweep's MLflow run, and those of its points."""

    def __init__(self, context: KedroContext, name: str, sweep: SweepOptions):
        import mlflow

        self.client = mlflow.MlflowClient()
        self._experiment = context.mlflow.tracking.experiment._experiment.experiment_id
        self._name, self._sweep = name, sweep

    def resume(self, folder: Path) -> None:
        """Go on with the run that the sweep had, or begin one."""
        from mlflow.exceptions import MlflowException

        book = folder / "sweep.json"
        self.run_id = json.loads(book.read_text())["run_id"] if book.exists() else None
        try:
            if self.run_id is not None:
                self.client.update_run(self.run_id, status="RUNNING")
                return
        except MlflowException:
            _logger.warning("MLflow no longer knows the sweep's run %s: going on in a new one.", self.run_id)
        run = self.client.create_run(self._experiment, run_name=folder.name, tags={"sweep": self._name})
        self.run_id = run.info.run_id
        for option, values in self._sweep.grid.items():
            self.client.log_param(self.run_id, f"grid.{option}", str(values))
        self.client.log_param(self.run_id, "grid.seeds", str(self._sweep.seeds))
        write_json(book, {"run_id": self.run_id, "sweep": self._name, **self._sweep.model_dump(mode="json")})

    def forget_unfinished(self, folder: Path) -> None:
        """Delete the runs of attempts that were killed or failed: their points are run again."""
        done = {json.loads(path.read_text())["run_id"] for path in folder.glob("*/point.json")}
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        for run in self.client.search_runs([self._experiment], query, max_results=10_000):
            if run.info.run_id not in done:
                self.client.delete_run(run.info.run_id)

    def begin(self, point: Point) -> str:
        """A child run for a point; returns its id."""
        tags = {"mlflow.parentRunId": self.run_id, "sweep": self._name, "setting": point.setting}
        return self.client.create_run(self._experiment, run_name=point.name, tags=tags).info.run_id

    def tag_of(self, run_id: str, tag: str) -> str:
        return self.client.get_run(run_id).data.tags[tag]

    def end(self, status: str, run_id: str | None = None) -> None:
        self.client.set_terminated(run_id or self.run_id, status)


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
        merged = OmegaConf.create(self.parameters)
        for option, value in options.items():
            OmegaConf.update(merged, option, value, force_add=True)
        config, content = log.with_suffix(".yml"), {"run": run | {"params": OmegaConf.to_container(merged)}}
        write_file(config, lambda partial: partial.write_text(yaml.safe_dump(content)))
        command = [sys.executable, "-m", "kedro", "run", f"--config={config}"]
        with log.open("wb") as output:
            return subprocess.Popen(
                [*command, f"--env={self.env}"] if self.env else command,
                cwd=_PROJECT,
                env=os.environ | environment | {"PARTCRAFT_POINT": self.place + place},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
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

    @property
    def failed(self) -> bool:
        return self._process.returncode != 0

    def start(self, environment: dict[str, str]) -> None:
        self.run_id = self._tracker.begin(self.point)
        named = {"MLFLOW_RUN_ID": self.run_id, "PARTCRAFT_RUN_NAME": self.point.name}
        self._process = self._command.start(
            {"pipelines": "point"}, f"/{self.point.name}", self.point.options, environment | named, self.log
        )

    def ended(self) -> bool:
        """Whether the run is over; if it went well, its book is then written."""
        if self._process.poll() is None:
            return False
        if self.failed:
            self._tracker.end("FAILED", self.run_id)
        else:
            runs = {"run_id": self.run_id, "adapter_version": self._tracker.tag_of(self.run_id, "adapter_version")}
            write_json(self._book, {"point": self.point.name, **self._facts, **runs})
        return True

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._tracker.end("KILLED", self.run_id)

    def doing(self) -> str:
        """The end of the last line of its output, such as a progress bar."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 2000))
            lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "starts")[:48]


def _die_with_parent() -> None:
    """On Linux a point dies with the sweep, however that ends; elsewhere it goes on, and the next sweep awaits it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
