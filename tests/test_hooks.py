"""MLflow: where it keeps runs, and what when it cannot."""

import shutil
import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.db.utils import InitialBase
from sqlalchemy import create_engine

from partcraft_kedro.errors import UserError
from partcraft_kedro.hooks import (
    _do_without_hub,
    _follow_artifacts,
    _make_whole,
    _refuse_unusable,
    _refuse_unusable_place,
)


@pytest.fixture
def closed() -> str:
    """An address at which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("address", ["mlruns", "/data/mlruns", "file:///data/mlruns"])
def test_a_folder_is_refused_with_what_to_give_instead(address: str) -> None:
    with pytest.raises(UserError, match=r"is a folder.*give a database, sqlite:"):
        _refuse_unusable(address)


def test_a_server_that_does_not_answer_is_told(closed, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"does not answer \(.*unset MLFLOW_TRACKING_URI"):
        _refuse_unusable(closed)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(UserError, match="SOCKS"):
        _refuse_unusable("http://mlflow.invalid")


@pytest.mark.parametrize("address", ["mongodb://localhost/runs", "mssql+absent://localhost/runs"])
def test_what_mlflow_does_not_know_is_refused_with_what_to_give_instead(address: str) -> None:
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI is not to be used \(.+: give a database, sqlite:"):
        _refuse_unusable(address)


def test_artifacts_are_kept_in_a_folder_that_is_made_and_nowhere_else(tmp_path) -> None:
    _refuse_unusable_place((tmp_path / "new" / "artifacts").as_uri())
    assert list((tmp_path / "new" / "artifacts").iterdir()) == []
    (tmp_path / "file").touch()
    for place in ((tmp_path / "file" / "artifacts").as_uri(), "mongodb://localhost/runs"):
        with pytest.raises(UserError, match=r"^MLflow's artifacts cannot go to .+ set PARTCRAFT_ARTIFACTS to a folder"):
            _refuse_unusable_place(place)


def test_a_database_that_a_killed_run_has_half_made_is_made_anew(tmp_path) -> None:
    address = f"sqlite:///{tmp_path}/mlflow.db"
    engine = create_engine(f"sqlite:///{tmp_path}/.mlflow.partial.db")
    InitialBase.metadata.create_all(engine)  # as far as MLflow comes before its first migration
    engine.dispose()
    _make_whole(address)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert MlflowClient(address).search_experiments()[0].name == "Default"


def test_a_hub_that_does_not_answer_is_done_without(closed, monkeypatch, tmp_path) -> None:
    import os

    monkeypatch.setenv("HF_ENDPOINT", closed)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    _do_without_hub(["tiny", str(tmp_path), "None"])
    assert "HF_HUB_OFFLINE" not in os.environ
    _do_without_hub(["tiny", "owner/model"])
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_artifacts_of_a_moved_project_are_found_and_new_ones_lie_beside_them(tmp_path) -> None:
    old, new = tmp_path / "old", tmp_path / "50% #new"
    client = MlflowClient(f"sqlite:///{old}/mlflow.db")
    experiment = client.create_experiment("partcraft-test", (old / "mlartifacts").as_uri())
    run = client.create_run(experiment).info
    client.log_text(run.run_id, "weights", "adapter/adapter.json")
    client.create_registered_model("partcraft-test")
    client.create_model_version("partcraft-test", f"{run.artifact_uri}/adapter", run.run_id)
    foreign = client.create_experiment("other", (tmp_path / "other").as_uri())
    apart = client.create_run(foreign).info
    shutil.copytree(old, new)
    shutil.rmtree(old / "mlartifacts")

    address = f"sqlite:///{new}/mlflow.db".replace("%", "%25")
    for _ in range(2):  # the second time there is nothing to do
        _follow_artifacts(address, (new / "mlartifacts").as_uri())
        client = MlflowClient(address)
        assert [file.path for file in client.list_artifacts(run.run_id, "adapter")] == ["adapter/adapter.json"]
        source = client.get_model_version("partcraft-test", "1").source
        assert source == f"{client.get_run(run.run_id).info.artifact_uri}/adapter"
        assert client.get_run(apart.run_id).info.artifact_uri == apart.artifact_uri
    fresh = client.create_run(experiment).info
    client.log_text(fresh.run_id, "weights", "adapter.json")
    assert (new / "mlartifacts" / fresh.run_id / "artifacts" / "adapter.json").exists()
    assert not Path(old / "mlartifacts").exists()
