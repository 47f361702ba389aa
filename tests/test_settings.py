"""Where things lie, whatever the folder's name and wherever the package is."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from partcraft_kedro.project import lay_out, project_folder

ODD = "50% of #1? ü (new), %20"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / ODD
    lay_out(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it where a test of this process uses it
    return folder


def loaded(name: str) -> dict:
    bootstrap_project(project_folder())
    with KedroSession.create(env="test") as session:
        return dict(session._get_config_loader()[name])


def test_the_project_is_where_kedro_runs(project, monkeypatch) -> None:
    assert loaded("globals")["data_folder"] == f"{project}/data"
    monkeypatch.chdir(project / "conf")
    assert project_folder() == project


def test_the_database_is_in_the_project_whatever_its_name(project) -> None:
    address = loaded("mlflow")["server"]["mlflow_tracking_uri"]
    with sqlalchemy.create_engine(address).begin() as connection:
        connection.execute(sqlalchemy.text("create table found (id int)"))
    with sqlite3.connect(project / "mlflow.db") as database:
        assert database.execute("select * from found").fetchall() == []


def test_a_relative_folder_of_data_means_one_place(project, monkeypatch) -> None:
    monkeypatch.setenv("PARTCRAFT_DATA", "there")
    monkeypatch.chdir(project / "conf")
    assert loaded("globals")["data_folder"] == f"{project}/conf/there"


def test_artifacts_may_lie_at_an_address(project, monkeypatch) -> None:
    def place() -> str:
        return loaded("mlflow")["tracking"]["experiment"]["create_experiment_kwargs"]["artifact_location"]

    assert place() == f"{project}/mlartifacts"
    monkeypatch.setenv("PARTCRAFT_ARTIFACTS", "s3://bucket/artifacts")
    assert place() == "s3://bucket/artifacts"


@pytest.mark.parametrize(
    ("given", "point"), [("", ""), ("/", ""), ("sweeps/a/b", "/sweeps/a/b"), ("/sweeps/a/b/", "/sweeps/a/b")]
)
def test_a_point_is_found_with_and_without_its_slash(project, monkeypatch, given: str, point: str) -> None:
    monkeypatch.setenv("PARTCRAFT_POINT", given)
    assert loaded("globals")["point"] == point
