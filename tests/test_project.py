"""A project of one's own, begun from the installed package."""

import os
import subprocess
import sys

import pytest

from partcraft_kedro.errors import UserError
from partcraft_kedro.project import lay_out


def partcraft(*arguments: str, cwd) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "partcraft_kedro", *arguments]
    # Other tests of this process may have told MLflow where to keep runs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True)


def test_a_project_is_begun_where_there_is_none_and_runs(tmp_path) -> None:
    begun = partcraft("new", "birds", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    assert begun.stdout.endswith("Change into birds, then: kedro run\n")
    run = partcraft("run", "--env=test", "--pipelines=images", cwd=tmp_path / "birds")
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (tmp_path / "birds").iterdir()} >= {"conf", "src", "data", "mlflow.db"}
    assert any((tmp_path / "birds" / "data").glob("02_intermediate/*/records.parquet"))


def test_settings_of_this_machine_alone_are_not_given_away(tmp_path) -> None:
    lay_out(tmp_path / "birds")
    assert list((tmp_path / "birds" / "conf" / "local").iterdir()) == []


@pytest.mark.parametrize("there", ["a folder", "a file"])
def test_what_is_there_is_left_as_it_is(tmp_path, there: str) -> None:
    place = tmp_path / "birds"
    if there == "a folder":
        place.mkdir()
        (place / "mine.txt").write_text("mine")
    else:
        place.write_text("mine")
    with pytest.raises(UserError, match="birds is there already"):
        lay_out(place)
    assert (place / "mine.txt" if place.is_dir() else place).read_text() == "mine"
