"""What a run is going to do, what each of its stages took, and what it left to do.

A stage here is one of the pipelines' names, and the tag of its nodes. What earlier runs did is noted in
`data/.runs/<dataset>.json`, by all that a stage's result depends on: its options, those of the stages before it, and
the versions of their work. It is a forecast alone: what is really kept is decided by `Stages.run`, by content.
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from partcraft_kedro.files import fingerprint_of, write_json
from partcraft_kedro.stages import Stage, StageRef, Stages, key_of_options


class Ledger:
    """What earlier runs of a dataset did: the folders that a stage's work lies in, by the stage's key; the key of each
    dataset that they left behind; the seconds that each stage last took when it computed."""

    def __init__(self, stages: Stages):
        self._root = stages.root
        self._path = stages.root / ".runs" / f"{stages.dataset}{stages.point}.json"
        try:
            noted = json.loads(self._path.read_text())
        except (OSError, json.JSONDecodeError):
            noted = {}
        self.made: dict[str, str] = noted.get("made", {})
        self._folders: dict[str, list[str]] = noted.get("folders", {})
        self.seconds: dict[str, float] = noted.get("seconds", {})

    def keeps(self, key: str) -> bool:
        """Whether all work of the stage with this key is done and still there; of one without long work: no."""
        folders = self._folders.get(key, [])
        return bool(folders) and all((self._root / folder / "finished.json").exists() for folder in folders)

    def note(self, key: str, stage: str, folders: Iterable[Path], made: Iterable[str], seconds: float | None) -> None:
        """That a stage is done; seconds: None if it computed nothing."""
        self._folders[key] = [folder.relative_to(self._root).as_posix() for folder in folders]
        self.made |= dict.fromkeys(made, key)
        if seconds is not None:
            self.seconds[stage] = round(seconds, 1)
        write_json(self._path, {"made": self.made, "folders": self._folders, "seconds": self.seconds})


class ProgressHooks:
    """Tells the plan before a pipeline runs, and one line for each stage when it is done."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        self._stages: Stages = catalog.load("params:stages")
        self._ledger = Ledger(self._stages)
        options = catalog.load("parameters")
        self._nodes = _by_stage(pipeline)
        self._left = {stage: _deciding(nodes) for stage, nodes in self._nodes.items()}
        self._seconds = dict.fromkeys(self._nodes, 0.0)
        self._asked: dict[str, list[StageRef]] = {stage: [] for stage in self._nodes}
        self._keys = _keys_of(
            self._nodes, options, self._ledger.made, run_params.get("load_versions") or {}, self._stages
        )
        kept = [stage for stage, key in self._keys.items() if self._ledger.keeps(key)]
        coming = [stage for stage in self._keys if stage not in kept]
        taken = {name for stage in coming for node in self._nodes[stage] for name in node.inputs}
        # Options that no node of the pipeline takes are as the user wrote them, not validated.
        on_ray = "params:compute" in taken and options["compute"].engine == "ray"
        where = describe(options["base"], on_ray) if "params:base" in taken else ""
        for line in plan_of(self._stages.dataset, where, kept, coming, self._ledger.seconds):
            click.echo(line)

    @hook_impl
    def before_node_run(self) -> None:
        self._begun, self._before = time.monotonic(), len(self._stages.asked)

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        stage = _stage_of(node)
        self._seconds[stage] += time.monotonic() - self._begun
        self._asked[stage] += self._stages.asked[self._before :]
        left = self._left[stage]
        if node.name not in left:
            return
        left.remove(node.name)
        if left:
            return
        asked = self._asked[stage]
        kept = bool(asked) and all(each.found for each in asked)
        seconds = None if kept else self._seconds[stage]
        made = [name for node in self._nodes[stage] for name in node.outputs]
        self._ledger.note(self._keys[stage], stage, [each.folder for each in asked], made, seconds)
        click.echo(f"{stage:<12}{'kept' if seconds is None else duration(seconds)}")


def _keys_of(
    nodes: dict[str, list[Node]],
    options: dict[str, Any],
    made: dict[str, str],
    versions: dict[str, str],
    stages: Stages,
) -> dict[str, str]:
    """What each stage's result depends on, hashed, in the order of the stages: its options but silent ones, the
    versions of its work, and the keys of the stages that it takes something from.

    made: the key of each dataset as an earlier run left it; versions: what is to be loaded of an earlier run, by
    dataset.
    """
    makers = {output: stage for stage in nodes for node in nodes[stage] for output in node.outputs}
    keys: dict[str, str] = {}

    def key_of(stage: str) -> str:
        if stage in keys:
            return keys[stage]
        inputs = sorted({name for node in nodes[stage] for name in node.inputs})
        taken = [name for name in inputs if not name.startswith("params:") and makers.get(name) != stage]
        groups = [name.removeprefix("params:") for name in inputs if name.startswith("params:")]
        key = {
            "stage": stage,
            "work": {work.name: work.version for node in nodes[stage] for work in _work_of(node)},
            "options": {
                group: key_of_options(options[group], stages.root / ".digests") for group in groups if group in options
            },
            "taken": {name: key_of(makers[name]) if name in makers else made.get(name) for name in taken},
            "versions": {name: version for name, version in versions.items() if name in inputs},
        }
        keys[stage] = fingerprint_of(key)
        return keys[stage]

    for stage in nodes:
        key_of(stage)
    return keys


def plan_of(dataset: str, where: str, kept: list[str], coming: list[str], seconds: dict[str, float]) -> list[str]:
    """The plan in two lines: where it computes, if it does; which stages are kept and which run, and how long those
    took when they last ran, where that is known."""
    told = [f"{stage} ({duration(seconds[stage])})" if stage in seconds else stage for stage in coming]
    parts = [f"kept: {', '.join(kept)}"] if kept else []
    if told:
        parts.append(f"to run: {', '.join(told)}")
    if len(told) > 1 and all(stage in seconds for stage in coming):
        parts.append(f"together about {duration(sum(seconds[stage] for stage in coming))}")
    return [", ".join(filter(None, [f"PartCraft: {dataset}", where])), "; ".join(parts)]


def describe(base: Any, on_ray: bool) -> str:
    """Where models compute, and in what. Of a cluster's machines this one knows nothing, and takes no GPU from them."""
    if on_ray:
        return "on Ray"
    import torch

    from partcraft_kedro.devices import compute_type, resolve_device

    device = resolve_device(base.device)
    precision = str(compute_type(base.precision, device)).removeprefix("torch.")
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)} ({device}), {precision}"
    count = torch.get_num_threads()
    return f"{device}, {count} thread{'s' if count > 1 else ''}, {precision}"


def duration(seconds: float) -> str:
    """12 s, 4 min 50 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _by_stage(pipeline: Pipeline) -> dict[str, list[Node]]:
    grouped: dict[str, list[Node]] = {}
    for node in pipeline.nodes:
        grouped.setdefault(_stage_of(node), []).append(node)
    return grouped


def _stage_of(node: Node) -> str:
    (tag,) = node.tags
    return tag


def _work_of(node: Node) -> list[Stage]:
    """The long computations that are declared beside a node's function."""
    return [each for each in vars(sys.modules[node.func.__module__]).values() if isinstance(each, Stage)]


def _deciding(nodes: list[Node]) -> set[str]:
    """The nodes that a stage is done with: figures that Kedro draws after the next stages have run are not waited for,
    unless there is nothing else."""
    names = {node.name for node in nodes if not all(name.endswith("_figure") for name in node.outputs)}
    return names or {node.name for node in nodes}
