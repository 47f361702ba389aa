"""A Ray cluster of two machines, which are this one: what is done on it, and what becomes of it when machines fail."""

import io
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import torch.nn.functional as F

from partcraft_kedro.compute import Engine
from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.plan import make_plan
from partcraft_kedro.options import (
    BaseModelOptions,
    ComputeOptions,
    EvaluateOptions,
    FeaturesOptions,
    SamplingOptions,
)
from partcraft_kedro.parts.label_maps import save_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.stages import StageRef
from partcraft_kedro.weights import TINY

ray = pytest.importorskip("ray", reason="needs the extra [ray]")
from writing import ITEMS, open_telling, open_writing  # noqa: E402  # which needs Ray too

MACHINE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 2**27}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # workers import from here too
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # whatever tokens this user has
        patch.setenv("RAY_worker_niceness", "0")  # else others on a busy machine come first
        cluster = Cluster(initialize_head=True, head_node_args={**MACHINE, "include_dashboard": False})
        cluster.add_node(**MACHINE)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def engine(cluster, tmp_path):
    with Engine(ComputeOptions(engine="ray", address=cluster.address), "cpu", tmp_path) as engine:
        yield engine


def written(folder: Path) -> dict[str, str]:
    """Nothing half-written is left either."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def writers(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in (folder / "by").iterdir()]


@pytest.fixture
def expected(tmp_path) -> dict[str, str]:
    """What this process makes of the items."""
    local = Engine(ComputeOptions(), "cpu", tmp_path)
    local.map(partial(open_writing, tmp_path / "local"), ITEMS, 4, "write")
    return written(tmp_path / "local")


def test_two_machines_make_the_files_of_one(engine, expected, tmp_path) -> None:
    assert len(expected) == 6
    engine.map(partial(open_writing, tmp_path / "ray", 0.2), ITEMS, 4, "write")
    assert written(tmp_path / "ray") == expected
    assert len(set(writers(tmp_path / "ray"))) == 2 and os.getpid() not in writers(tmp_path / "ray")
    # What is there is kept, and the workers do another stage's work as well.
    before = writers(tmp_path / "ray")
    (tmp_path / "ray/008.txt").unlink()
    engine.map(partial(open_writing, tmp_path / "ray"), ITEMS, 4, "write")
    assert written(tmp_path / "ray") == expected
    assert sum(one != other for one, other in zip(before, writers(tmp_path / "ray"), strict=True)) <= 1


def test_workers_go_by_the_environment_of_the_run(engine, tmp_path, monkeypatch) -> None:
    """Also by what was set since Ray was started."""
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.of.this.run")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    engine.map(partial(open_telling, tmp_path / "ray"), ["item"], 1, "tell")
    assert written(tmp_path / "ray") == {"0.txt": "http://hub.of.this.run False"}


def test_a_mistake_is_told_as_here(engine, tmp_path) -> None:
    with pytest.raises(UserError, match=r"^Item 99 cannot be read: remove it\.$"):
        engine.map(partial(open_writing, tmp_path / "ray"), [*ITEMS, "item 99"], 4, "write")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_workers_find_the_memory_of_a_gpu_that_the_driver_no_longer_uses(engine, tmp_path) -> None:
    of_before = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    del of_before
    engine.map(partial(open_writing, tmp_path / "ray"), ITEMS, 4, "write")
    assert torch.cuda.memory_reserved() < 2**28


def test_a_machine_that_is_killed_is_done_without(cluster, expected, tmp_path) -> None:
    """It is at work on something, which another then does."""
    machine, begun = cluster.add_node(**MACHINE), tmp_path / "ray/begun"

    def kill() -> None:
        while all(path.read_text() != machine.node_id for path in begun.glob("[0-9]*.txt")):
            time.sleep(0.01)
        cluster.remove_node(machine, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    with Engine(ComputeOptions(engine="ray", address=cluster.address), "cpu", tmp_path) as engine:
        engine.map(partial(open_writing, tmp_path / "ray", 2.0), ITEMS, 4, "write")
        assert len(engine._workers._alive) == 2
    killer.join()
    assert written(tmp_path / "ray") == expected


DRIVER = """
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from partcraft_kedro.compute import Engine
from partcraft_kedro.options import ComputeOptions
from writing import ITEMS, open_writing
address, folder, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
with Engine(ComputeOptions(engine="ray", address=address), "cpu", folder.parent) as engine:
    engine.map(partial(open_writing, folder, pause), ITEMS, 4, "write")
"""


def test_a_driver_that_is_killed_goes_on(cluster, expected, tmp_path) -> None:
    folder = tmp_path / "ray"

    def start(pause: str) -> subprocess.Popen:
        command = [sys.executable, "-c", DRIVER, cluster.address, str(folder), pause]
        return subprocess.Popen(command)

    process = start("0.5")
    while not folder.exists() or len(written(folder)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.txt")}
    assert 2 <= len(stamps) < 6
    assert start("0").wait(timeout=300) == 0
    for path in folder.glob(".*.partial-*"):  # the stage removes them at its end
        path.unlink()
    assert written(folder) == expected
    assert all((folder / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())


class Paths(pickle.Pickler):
    """Notes which paths are in what it pickles."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found: list[Path] = []

    def reducer_override(self, thing: object) -> object:
        if isinstance(thing, Path):
            self.found.append(thing)
        return NotImplemented


def test_the_stages_that_are_shared_out_leave_the_same_bytes(
    engine, create_tiny, tmp_path, tmp_path_factory, monkeypatch
) -> None:
    """Features, what crops change of them, latents, pictures and scores, of a few drawings and an untrained adapter;
    scores in several pieces.

    Of what workers are sent no path leads out of the folder of data, though the adapter is of a hub's cache.
    """
    whole_map, sent = engine.map, Paths()

    def noting_map(open_work: Callable, *rest: object) -> None:
        sent.dump(open_work)
        whole_map(open_work, *rest)

    monkeypatch.setattr(engine, "map", noting_map)
    from partcraft_kedro.pipelines.evaluate import work as evaluation
    from partcraft_kedro.pipelines.features.work import extraction
    from partcraft_kedro.pipelines.generate.work import generation
    from partcraft_kedro.pipelines.parts import work as parts
    from partcraft_kedro.pipelines.train.work import caching

    sizes = {"classes": 2, "pictures_per_class": 5, "test_fraction": 0.2, "seed": 0}
    records = draw_dataset("creatures", tmp_path / "drawn", tmp_path, **sizes)
    adapter, predictor = tmp_path_factory.mktemp("hub") / "adapter", tmp_path / "predictor"
    create_tiny().save_adapter(adapter, {"fingerprint": "0" * 16})
    predictor.mkdir()
    random_predictor([3, 4, 4]).save(predictor)
    save_label_maps(np.random.default_rng(0).integers(0, 3, (len(records), 16, 16), np.uint8), tmp_path / "masks")
    codes = np.random.default_rng(0).integers(0, 3, (len(records), 3))
    plan = make_plan(
        list(records["id"]),
        codes,
        reconstructions=3,
        compositions=1,
        max_sources=2,
        transfers=0,
        transferred={},
        seed=0,
    )
    base, features = BaseModelOptions(device="cpu"), FeaturesOptions(batch_size=2, shard_size=4)
    sampling = SamplingOptions(steps=1, guidance_scale=1, batch_size=2)
    seen = {
        "plan": plan,
        "pictures": StageRef(tmp_path / "local/pictures", ""),
        "records": records,
        "part_predictor": predictor,
        "part_masks": tmp_path / "masks",
        "matching": {"1": "head"},
        "judge": TINY / "judge",
        "base": base,
        "features": features,
        "evaluate": EvaluateOptions(bootstrap=10),
    }
    whole, told = evaluation._SHARD, []
    monkeypatch.setattr(evaluation, "_SHARD", 2)
    monkeypatch.setattr(parts, "_CROP_SHARD", 5)
    for name, by in (("local", Engine(ComputeOptions(), "cpu", tmp_path)), ("ray", engine)):
        kinds = ("features", "crop_changes", "latents", "pictures", "scores")
        places = {kind: StageRef(tmp_path / name / kind, "") for kind in kinds}
        told.append(extraction(places["features"], records=records, features=features, engine=by))
        extracted = replace(places["features"], summary=told[-1])
        parts.cropping(places["crop_changes"], features=extracted, records=records, seed=0, engine=by)
        caching(places["latents"], records=records, base=base, engine=by)
        generation(
            places["pictures"],
            plan=plan,
            adapter=StageRef(adapter, "0" * 16),
            part_predictor=predictor,
            base=base,
            sampling=sampling,
            seed=0,
            engine=by,
        )
        evaluation.scoring(places["scores"], **seen, engine=by)
    assert told[0] == told[1]
    assert (told[0]["pictures"], told[0]["grid"], told[0]["width"]) == (10, 16, 96)
    local, ray = contents(tmp_path / "local"), contents(tmp_path / "ray")
    assert local == ray
    assert len(sent.found) > 10 and all(path.is_relative_to(tmp_path) for path in sent.found)
    assert len([name for name in local if name.startswith("features/")]) == 3
    assert len([name for name in local if name.startswith("crop_changes/")]) == 2  # of eight pictures to learn from
    assert {"latents/latents-0000000.safetensors", "scores/scores.parquet", "scores/summary.json"} <= local.keys()
    assert len([name for name in local if name.endswith(".png")]) == 2 * len(plan) == 10
    monkeypatch.setattr(evaluation, "_SHARD", whole)
    evaluation.scoring(StageRef(tmp_path / "whole", ""), **seen, engine=Engine(ComputeOptions(), "cpu", tmp_path))
    in_one, in_three = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("whole", "local/scores"))
    pd.testing.assert_frame_equal(in_one, in_three)


def random_predictor(variants: list[int]) -> PartPredictor:
    """One for tiny's features: what it finds means nothing."""
    generator = torch.Generator().manual_seed(0)
    width = 96  # of its features

    def unit(count: int) -> torch.Tensor:
        return F.normalize(torch.randn(count, width, generator=generator), dim=-1)

    return PartPredictor(
        unit(2),
        unit(len(variants) - 1),
        [unit(count) for count in variants],
        discovery="plain",
        features={"model": "tiny"},
        min_patches=1,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_machine_with_another_folder_of_data_is_refused(cluster, tmp_path) -> None:
    """In a mount namespace of its own the folder is another, and empty."""
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*isolated, mount], check=False).returncode:
        pytest.skip("no mount namespace is to be had")
    start = f"{Path(sys.executable).parent}/ray start --address={cluster.address} --num-cpus=1 --num-gpus=0 --block"
    alive = len(machines())
    machine = subprocess.Popen(
        [*isolated, f"{mount} && exec {start}"], start_new_session=True, stdout=subprocess.DEVNULL
    )
    engine = Engine(ComputeOptions(engine="ray", address=cluster.address), "cpu", tmp_path)
    try:
        while len(machines()) == alive:
            assert machine.poll() is None
            time.sleep(0.1)
        with pytest.raises(
            UserError, match=r"^Ray's machine \S+ does not see what is written to it here: all machines"
        ):
            engine.check()
        with pytest.raises(UserError, match=r"the same folder of data"):
            engine.map(partial(open_writing, tmp_path / "ray"), ITEMS, 4, "write")
    finally:
        os.killpg(machine.pid, signal.SIGTERM)
        machine.wait()
    assert not (tmp_path / "ray").exists()
    assert not list(tmp_path.iterdir())


def raylet_of(machine) -> int:
    """The process that is the machine, whose children do its work."""
    return machine.all_processes["raylet"][0].process.pid


def test_a_machine_that_hangs_is_named(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("partcraft_kedro.cluster._ANSWER", 2.0)
    machine = cluster.add_node(**MACHINE)
    try:
        os.kill(raylet_of(machine), signal.SIGSTOP)
        with pytest.raises(UserError, match=r"^Ray's machine \S+ has not answered for 2 seconds: see what it waits"):
            Engine(ComputeOptions(engine="ray", address=cluster.address), "cpu", tmp_path).check()
    finally:
        os.kill(raylet_of(machine), signal.SIGCONT)
        cluster.remove_node(machine)


def machines() -> list[dict]:
    return [node for node in ray.nodes() if node["Alive"]]


def test_a_point_is_a_task_that_takes_its_process_with_it(cluster, tmp_path, monkeypatch) -> None:
    from partcraft_kedro.sweeps.remote import RayMachine

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    machine, log = RayMachine(address=cluster.address, needs={"num_cpus": 1}), tmp_path / "log.txt"
    tell = "import os, sys; print(*map(os.environ.get, ('MLFLOW_TRACKING_URI', 'PARTCRAFT_POINT'))); sys.exit(3)"
    assert machine.start(["-c", tell], {"PARTCRAFT_POINT": "/ranks/2"}, log).wait() == 3
    assert log.read_text() == "http://server /ranks/2\n"

    wait = "import os; print(os.getpid(), flush=True); os.read(0, 1)"  # until its parent is gone
    process = machine.start(["-c", wait], {}, log)
    while not log.read_text().endswith("\n"):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -1
    while Path(f"/proc/{log.read_text().strip()}").exists():
        time.sleep(0.05)

    monkeypatch.setattr("partcraft_kedro.sweeps.remote.project_folder", lambda: tmp_path / "gone")
    assert machine.start(["-c", tell], {}, log).wait() == -1
    told = r"Ray's machine cannot begin the point \(.+/gone'\)\): the same command goes on\.\n"
    assert re.fullmatch(told, log.read_text())


TWICE = """
import os, pathlib, sys
begun = pathlib.Path(sys.argv[1])
if begun.exists():
    print("done")
else:
    print("begun", flush=True)
    begun.write_text(str(os.getpid()))
    os.read(0, 1)
"""


def test_a_point_whose_machine_is_lost_goes_on_on_another_or_says_that_there_is_none(cluster, tmp_path) -> None:
    """Only machines that are added here have two processors."""
    from partcraft_kedro.sweeps.remote import RayMachine

    added = [cluster.add_node(**MACHINE | {"num_cpus": 2}) for _ in range(2)]
    begun, log = tmp_path / "begun", tmp_path / "log.txt"
    place = RayMachine(address=cluster.address, needs={"num_cpus": 2})
    process = place.start(["-c", TWICE, str(begun)], {}, log)
    while not begun.exists() or not begun.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    of_point = {parent.pid for parent in psutil.Process(int(begun.read_text())).parents()}
    (lost,) = [machine for machine in added if raylet_of(machine) in of_point]
    cluster.remove_node(lost, allow_graceful=False)
    assert process.wait() == 0
    assert re.fullmatch(r"begun\nRay's machine is lost: going on on \S+\ndone\n", log.read_text())

    (other,) = {*added} - {lost}
    cluster.remove_node(other)
    process = place.start(["-c", TWICE, str(begun)], {}, log)
    assert process.wait() == -1
    assert log.read_text() == "Ray's machine is lost (none that could run it is left): the same command goes on.\n"


def test_a_cluster_that_does_not_answer_is_named(cluster, tmp_path) -> None:
    ray.shutdown()
    with pytest.raises(UserError, match=r"^Ray at 127\.0\.0\.1:9 does not answer \(.+compute\.address=host:port\.$"):
        Engine(ComputeOptions(engine="ray", address="127.0.0.1:9"), "cpu", tmp_path).check()
