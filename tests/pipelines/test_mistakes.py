"""A user's mistakes: one sentence, a non-zero exit, nothing lost."""

import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from partcraft_kedro.errors import FullDisk, UserError
from partcraft_kedro.mistakes import _refuse_unreadable, _sentence


def last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("run --env=cbu", "no environment 'cbu': did you mean 'cub'?"),
        ("run --env=test --piplines=train", "'--pipelines'"),
        ("run --env=test --pipelines=trian", "no pipeline 'trian': did you mean 'train'?"),
        ("run --env=test --tags=trian", "no tag 'trian': did you mean 'train'?"),
        ("run --env=test --nodes=train_adaptr", "no node 'train_adaptr': did you mean 'train_adapter'?"),
        ("run --env=test --params=train.atention_weight=0.1", "did you mean 'attention_weight'?"),
        ("run --env=test --params=trian.steps=3", "did you mean 'train'?"),
        ("run --env=test --params=train.attention_weight=-1", "train.attention_weight=-1: "),
        ("run --env=test --pipelines=images --params=train.stpes=3", "did you mean 'steps'?"),
        ("run --env=test --params=base.model=/no/such/folder", "/no/such/folder"),
        ("run --env=folder --params=images.folder=/no/such/folder", "images.folder='/no/such/folder' is not there"),
        ("run --env=test --tags=train --load-versions=adapter:2020", "no adapter version or folder '2020'"),
        ("run --env=faces --tags=prompts", "no codes yet: run `kedro run --pipelines=parts`"),
        ("sweep --env=test atention_weight", "no sweep 'atention_weight': did you mean 'attention_weight'?"),
        ("runs --env=faces", "no runs of partcraft-faces yet"),
    ],
)
def test_a_slip_is_told_in_one_sentence_and_leaves_no_run(finished, command: str, told: str) -> None:
    with sqlite3.connect(finished.database) as database:
        count = "select (select count(*) from runs), (select count(*) from experiments)"
        before = database.execute(count).fetchall()
        name, *arguments = command.split()
        process = subprocess.run(
            [sys.executable, "-m", "kedro", name, *arguments], cwd=finished.folder, text=True, capture_output=True
        )
        assert process.returncode in (1, 2)
        (sentence,) = (process.stdout + process.stderr).strip().splitlines()
        assert sentence.startswith("Error: ") and told in sentence
        assert database.execute(count).fetchall() == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"train:\n  steps: 3\n\tseed: 1\n", r", line 3 cannot be read \(found character '\\t' that cannot start"),
        (b"train: {steps: 3}\ntrain: {seed: 1}\n", ", line 2 cannot be read .found duplicate key train"),
        (b"train: {steps: 3\n", ", line 2 cannot be read"),
        (b"- steps\n", " has a list where names"),
        (b"train: \xff\n", " cannot be read"),
    ],
)
def test_settings_that_cannot_be_read_are_told_with_file_and_line(tmp_path, content: bytes, told: str) -> None:
    settings = tmp_path / "parameters.yml"
    settings.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(settings)) + told):
        _refuse_unreadable(settings)


def test_settings_are_looked_at_before_anything_runs(project) -> None:
    (project.folder / "conf" / "test" / "parameters_own.yml").write_text("train: [\n")
    code, output = project.run("--pipelines=images")
    assert code == 1 and len(output.splitlines()) == 1
    assert "parameters_own.yml, line 2 cannot be read" in output


def test_what_a_terminal_cannot_show_is_no_reason_to_fail(finished) -> None:
    code, output = finished.run("--tags=report", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 0, output
    assert "?" in output and output.isascii()


def test_a_base_that_cannot_serve_is_refused_before_anything_runs(project, tmp_path) -> None:
    (tmp_path / "xl").mkdir()
    (tmp_path / "xl" / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    code, output = project.run("--params=base.model=~/xl", HOME=str(tmp_path))
    assert code == 1
    assert last_line(output).startswith("Error: base.model='") and "is a StableDiffusion3Pipeline" in last_line(output)
    assert list(project.data.iterdir()) == []


def test_a_few_broken_pictures_are_set_aside_and_many_stop_the_run(project) -> None:
    code, output = project.run("--pipelines=images")
    assert code == 0, output
    pictures = sorted(project.data.glob("01_raw/test/drawings-*/images/*.png"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:2000])
    code, output = project.run("--pipelines=images", "--params=images.max_broken_share=0")
    assert code != 0 and pictures[0].name in last_line(output) and "Traceback" not in output
    code, output = project.run("--pipelines=images")
    assert code == 0, output
    for path in pictures:
        path.unlink()
    code, output = project.run("--pipelines=images")
    assert code != 0 and "missing" in last_line(output) and "Traceback" not in output


def test_an_adapter_for_other_parts_is_refused(finished) -> None:
    code, output = finished.run("--pipelines=prompts", "--params=parts.variants=3")
    assert code == 0, output
    code, output = finished.run("--tags=generate")
    assert code != 0
    assert "The adapter" in last_line(output) and "Traceback" not in output
    assert output.count(last_line(output).removeprefix("Error: ")) == 1 and "--from-nodes" not in output
    assert finished.run("--pipelines=generate")[0] == 0


def test_a_full_disk_is_told_plainly_with_what_could_not_be_written(tmp_path) -> None:
    with pytest.raises(OSError) as caught, Path("/dev/full").open("w") as full:
        full.write("x")
    assert caught.value.errno == errno.ENOSPC
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = caught.value
    assert _sentence(wrapped) == str(FullDisk("a file for MLflow or a temporary one"))
    copied = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report.png", None, "mlartifacts/report.png")
    assert _sentence(copied) == str(FullDisk("mlartifacts/report.png"))
    none_left = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']")
    assert "disk is full" in _sentence(none_left)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("pragma max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.execute("create table runs (id text)")
    assert "MLflow's database" in _sentence(full.value)
    # What MLflow says of a run that failed, its database on the same disk, hides why it did.
    full.value.__context__ = FullDisk(tmp_path / "features.safetensors")
    assert "features.safetensors cannot be written" in _sentence(full.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), MemoryError()]
)
def test_memory_that_ran_out_is_told(error) -> None:
    import torch  # noqa: F401, is there whenever its memory runs out

    assert _sentence(error).startswith("Memory ran out (")
    assert _sentence(RuntimeError("something else")) is None


def test_a_half_written_database_is_told_plainly(project) -> None:
    with sqlite3.connect(project.database) as database:
        database.execute("create table experiments (id int)")
    code, output = project.run("--pipelines=images")
    assert code == 1
    assert str(project.database) in last_line(output) and "Remove it" in last_line(output)
