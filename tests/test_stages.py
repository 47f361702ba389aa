"""Stages: done once, found again, and another one whenever anything differs that they see."""

import subprocess
import sys
import time
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated

import pandas as pd
import pytest

from partcraft_kedro.options import Contents, Options, Silent, Weights
from partcraft_kedro.stages import Stage, StageRef, Stages, Workfolder
from partcraft_kedro.weights import TINY

STAGE = Stage("counting", "04_feature", version=1, work=f"{__name__}.count")
CALLS = []


class Inner(Options):
    steps: int = 1
    batch_size: Annotated[int, Silent()] = 1


class Counting(Options):
    model: Annotated[str, Weights("judge", "counting.model")] = "tiny"
    table: Annotated[Path | None, Contents()] = None
    workers: Annotated[int, Silent()] = 1
    inner: Inner = Inner()


def count(place: StageRef, **given) -> dict:
    CALLS.append(place.folder)
    pd.DataFrame({"given": sorted(given)}).to_parquet(place.folder / "table.parquet")
    return {"arguments": len(given)}


@pytest.fixture
def stages(tmp_path) -> Stages:
    CALLS.clear()
    return Stages(tmp_path / "data", "birds")


def test_the_work_is_done_once(stages) -> None:
    first = stages.run(STAGE, {"a": 1}, {"device": "cpu"})
    again = stages.run(STAGE, {"a": 1}, {"device": "cuda"})
    assert len(CALLS) == 1
    assert (first.found, again.found) == (False, True)
    assert first.summary == again.summary == {"arguments": 2}
    assert again.folder == first.folder == stages.layer("04_feature") / f"counting-{first.fingerprint}"
    assert again.table("table")["given"].tolist() == ["a", "device"]


def test_work_that_breaks_off_is_gone_on_with(stages, monkeypatch) -> None:
    def break_off(place: StageRef, **given) -> None:
        (place.folder / "half").touch()
        raise RuntimeError

    monkeypatch.setattr(sys.modules[__name__], "count", break_off)
    with pytest.raises(RuntimeError):
        stages.run(STAGE, {})
    monkeypatch.undo()
    assert (stages.run(STAGE, {}).folder / "half").exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})),
        (StageRef(Path("a"), "abc"), StageRef(Path("a"), "abd")),
        (Counting(), Counting(inner=Inner(steps=2))),
        (Counting(model="a/b"), Counting(model="a/c")),
    ],
    ids=["number", "table", "stage", "option", "model"],
)
def test_anything_that_differs_of_what_is_seen_is_another_folder(stages, one, other) -> None:
    assert stages.run(STAGE, {"a": one}).folder != stages.run(STAGE, {"a": other}).folder


def test_another_version_or_argument_is_another_folder(stages) -> None:
    later = Stage(STAGE.name, STAGE.layer, version=2, work=STAGE.work)
    assert len({stages.run(stage, seen).folder for stage in (STAGE, later) for seen in ({"a": 1}, {"b": 1})}) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Counting(), Counting(workers=2, inner=Inner(batch_size=2))),
        (StageRef(Path("a"), "abc"), StageRef(Path("b"), "abc", {"pictures": 3}, True)),
        (Counting().only("model"), Counting(inner=Inner(steps=2)).only("model")),
    ],
    ids=["silent", "place", "not passed on"],
)
def test_what_changes_no_result_is_the_same_folder(stages, one, other) -> None:
    assert stages.run(STAGE, {"a": one}).folder == stages.run(STAGE, {"a": other}).folder


def test_of_models_and_files_the_content_counts_and_not_the_place(stages, tmp_path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("judge.safetensors", "elsewhere.csv"):
        (tmp_path / "model" / name).write_bytes((TINY / "judge" / "judge.safetensors").read_bytes())
    (tmp_path / "there.csv").write_text("1")
    elsewhere = tmp_path / "model" / "elsewhere.csv"
    (tmp_path / "copy").symlink_to(tmp_path / "model")
    assert (
        stages.run(STAGE, {"a": Counting(model=str(tmp_path / "model"), table=elsewhere)}).folder
        == stages.run(
            STAGE, {"a": Counting(model=str(tmp_path / "copy"), table=tmp_path / "copy" / elsewhere.name)}
        ).folder
        != stages.run(STAGE, {"a": Counting(model=str(tmp_path / "model"), table=tmp_path / "there.csv")}).folder
    )


def test_a_table_that_a_killed_process_left_half_written_is_none(tmp_path) -> None:
    pd.DataFrame({"step": [1, 2]}).to_parquet(tmp_path / "step_2.parquet")
    (tmp_path / ".step_1.partial.parquet").write_bytes(b"PAR1 and no more")
    (table,) = StageRef(tmp_path.parent, "").tables(f"{tmp_path.name}/step_*.parquet")
    assert table["step"].tolist() == [1, 2]


def test_an_option_that_was_not_passed_on_cannot_be_seen() -> None:
    selection = Counting().only("workers", "model")
    assert (selection.workers, selection.model) == (1, "tiny")
    with pytest.raises(AttributeError, match="inner is none of the options workers, model"):
        _ = selection.inner


def declared() -> dict[str, Stage]:
    from partcraft_kedro.pipeline_registry import register_pipelines

    modules = {node.func.__module__ for of in register_pipelines().values() for node in of.nodes}
    found = [thing for name in modules for thing in vars(sys.modules[name]).values() if isinstance(thing, Stage)]
    return {stage.name: stage for stage in found}


def test_every_declared_work_is_there_and_no_name_is_taken_twice() -> None:
    stages = declared()
    assert len(stages) == len({stage.work for stage in stages.values()}) >= 10
    for stage in stages.values():
        assert next(iter(signature(resolve_name(stage.work)).parameters)) == "place", stage.work


WORK = """
import sys, time
from pathlib import Path
from partcraft_kedro.stages import Workfolder
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
with Workfolder(folder, {"stage": "parts"}) as stage:
    if not stage.finished:
        with (folder / "log").open("a") as log:
            print("begins", file=log, flush=True)
            time.sleep(seconds)
            print("ends", file=log, flush=True)
        stage.finish()
"""


def work(folder, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder), str(seconds)], stderr=subprocess.PIPE, text=True)


def test_of_two_processes_one_works_and_the_other_waits(tmp_path):
    processes = [work(tmp_path, 1) for _ in range(2)]
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["begins", "ends"]
    assert sum("Another run is at work" in text for text in told) == 1


def test_a_process_that_is_killed_lets_go(tmp_path):
    process = work(tmp_path, 600)
    while not (tmp_path / "log").exists():
        time.sleep(0.05)
    process.kill()
    process.communicate()
    with Workfolder(tmp_path, {"stage": "parts"}) as stage:
        assert not stage.finished
