"""The chain as its users start it."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import requests
from mlflow import MlflowClient

from partcraft_kedro.evaluation.measures import MEASURES, names_with
from partcraft_kedro.pipeline_registry import register_pipelines

STAGES = ["images", "features", "parts", "prompts", "train", "generate", "evaluate", "report"]


def test_a_pipeline_holds_all_that_its_stage_needs() -> None:
    pipelines = register_pipelines()
    outputs = set()
    for stage in STAGES:
        pipeline = pipelines[stage]
        assert all(name.startswith("params:") for name in pipeline.inputs())
        assert outputs < set(pipeline.all_outputs())
        outputs = set(pipeline.all_outputs())
        assert pipeline.only_nodes_with_tags(stage).nodes
    reported = set(pipelines["report"].nodes) - set(pipelines["experiments"].nodes)
    assert set(pipelines["__default__"].nodes) == reported
    assert "adapter" in pipelines["point"].all_outputs() and "contact_sheet" not in pipelines["point"].all_outputs()


def test_metrics_have_the_promised_keys(finished) -> None:
    metrics = json.loads((finished.data / "08_reporting/test/metrics.json").read_text())
    assert {"nmi", "ari", "iou"} <= metrics["discovery"].keys()
    assert metrics["discovery"]["nmi"] > 0.75
    assert min(metrics["discovery"]["iou_of_labels"].values()) > 0.5  # every part found
    assert metrics["composition"].keys() == {"1", "2", "3", "4"}
    assert metrics["transfer"].keys() == {"nothing", "background"}
    swapped = [metrics["composition"][count] for count in "234"] + [metrics["transfer"]["background"]]
    alone = [metrics["reconstruction"], metrics["composition"]["1"], metrics["transfer"]["nothing"]]
    assert not any({"transfer", "preservation", "leakage"} & task.keys() for task in alone)
    assert metrics["part"].keys() == {"background", *metrics["discovery"]["iou_of_labels"]}
    for task in (*alone, *swapped):
        of_swaps = ("preservation", "leakage") if task in swapped else ()
        for measure in ("emr", "cosim", "judge", "shape", "iou_looked_found", "iou_found_mask", *of_swaps):
            score = task[measure]
            assert score.keys() == {"value", "low", "high", "n", "ceiling", "floor"}
            assert score["low"] <= score["value"] <= score["high"]
    assert metrics["distance"].keys() == {"frechet", "kernel", "density", "coverage"}
    assert metrics["distance"]["frechet"]["value"] is None  # of four pictures
    assert "more than 96 pictures" in metrics["distance"]["frechet"]["note"]


def test_one_row_for_each_picture(finished) -> None:
    scores = pd.read_parquet(finished.data / "08_reporting/test/scores.parquet")
    assert scores["kind"].value_counts().to_dict() == {"reconstruction": 4, "composition": 4 * 2, "transfer": 2}
    assert all((finished.data / path).exists() for path in scores["path"])
    swapped = scores[(scores["kind"] == "composition") & (scores["source_count"] == 4)]["swapped"]
    assert all(len(set(parts)) == 3 for parts in swapped)
    assert {name.removesuffix("_floor") for name in scores if name.endswith("_floor")} <= MEASURES.keys()


def test_mlflow_has_flat_options_curves_and_metrics(finished) -> None:
    with sqlite3.connect(finished.database) as database:
        options = dict(database.execute("select key, value from params"))
        metrics = {key for (key,) in database.execute("select distinct key from metrics")}
        names = database.execute("select count(*) from runs").fetchone()[0]
        kinds = dict(database.execute("select key, value from experiment_tags"))
    assert options["train.attention_weight"] == "0.01"
    assert options["generate.sampling.steps"] == "2"
    assert {
        "training/loss",
        "training/attention_inside",
        "training/sample_emr",
        "emr/reconstruction",
        "emr/transfer.background",
        "leakage/composition.4",
        "preservation/part.head",
        "training/validation_loss",
        "parts/nmi",
    } <= metrics
    sections = {name.partition("/")[0] for name in metrics}
    assert {"training", "parts", "emr"} <= sections
    assert sections <= {"training", "parts", "attention", "distance", *names_with(per_picture=True)}
    assert not [name for name in metrics if name.endswith((".low", ".high", ".ceiling", ".floor", ".n"))]
    assert names >= 1
    assert kinds["mlflow.experimentKind"] == "custom_model_development"


def test_a_second_run_computes_nothing_again(finished) -> None:
    def stamps() -> dict:
        finished_files = finished.data.rglob("finished.json")
        pictures = finished.data.glob("07_model_output/test/pictures-*/*.png")
        return {path: path.stat().st_mtime_ns for path in [*finished_files, *pictures]}

    before, contents = stamps(), finished.contents()
    code, output = finished.run(PYTHONPROFILEIMPORTTIME="1")
    assert code == 0, output
    assert stamps() == before
    told = [line for line in output.splitlines() if not line.startswith("import time:")]
    assert told[0] == "PartCraft: test"
    assert told[1].startswith("kept: images, features, parts, train, generate, evaluate; to run: prompts (")
    lines = dict(line.split(maxsplit=1) for line in told[2:10])
    assert lines.keys() == set(STAGES)
    kept = {stage for stage, what in lines.items() if what == "kept"}
    assert kept == {"images", "features", "parts", "train", "generate", "evaluate"}
    assert told[10].strip() == "PartCraft: what was measured"
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if line.startswith("import time:")}
    assert "pandas" in imported
    assert not imported & {"torch", "diffusers", "transformers", "peft", "torchmetrics"}
    assert finished.contents() == contents


@pytest.mark.parametrize(
    ("option", "stages"),
    [
        ("train.attention_weight=0.1", {"training", "adapter", "pictures"}),
        ("generate.sampling.steps=3", {"training", "adapter", "pictures"}),  # training shows pictures on its way
        ("generate.sampling.batch_size=3", set()),  # memory alone
    ],
)
def test_a_changed_option_runs_its_stage_and_what_follows(finished, option: str, stages: set[str]) -> None:
    before = set(finished.data.glob("0*/test/*-*"))
    code, output = finished.run("--pipelines=generate", f"--params={option}")
    assert code == 0, output
    fresh = {path.name.rsplit("-", 1)[0] for path in set(finished.data.glob("0*/test/*-*")) - before}
    assert fresh == stages
    assert finished.run("--pipelines=generate")[0] == 0


def test_scores_follow_the_pictures_that_floors_are_drawn_from(finished) -> None:
    before = set(finished.data.glob("07_model_output/test/scores-*"))
    table = finished.data / "02_intermediate/test/records.parquet"
    records = pd.read_parquet(table)
    records[records["split"] == "test"].to_parquet(table)
    code, output = finished.run("--tags=evaluate")
    assert code == 0, output
    assert len(set(finished.data.glob("07_model_output/test/scores-*")) - before) == 1
    assert finished.run()[0] == 0
    assert len(pd.read_parquet(table)) == len(records)


def test_a_part_with_another_name_is_neither_learnt_nor_drawn_anew(finished, project, tmp_path) -> None:
    shutil.copytree(finished.data, project.data, dirs_exist_ok=True)
    (tmp_path / "names.yml").write_text("1: nose")
    before = set(project.data.glob("0[67]_*/test/*-*"))
    code, output = project.run("--pipelines=generate", f"--params=parts.names={tmp_path}/names.yml")
    assert code == 0, output
    (packed,) = set(project.data.glob("0[67]_*/test/*-*")) - before
    assert packed.name.startswith("adapter-")
    newest = max(project.data.glob("06_models/test/adapter/*/adapter"))
    assert json.loads((newest / "parts/parts.json").read_text())["names"][1] == "nose"
    assert "| 1 | nose |" in (newest / "README.md").read_text()


def test_an_older_adapter_is_loaded_by_its_version(finished) -> None:
    versions = sorted(path.name for path in (finished.data / "06_models/test/adapter").iterdir())
    code, output = finished.run("--tags=generate", f"--load-versions=adapter:{versions[0]}")
    assert code == 0, output
    manifest = json.loads((finished.data / "07_model_output/test/generated_pictures.json").read_text())
    with_oldest = manifest["fingerprint"]
    code, output = finished.run()
    assert code == 0, output
    manifest = json.loads((finished.data / "07_model_output/test/generated_pictures.json").read_text())
    assert manifest["fingerprint"] == with_oldest


def test_killed_runs_end_with_the_same_bytes(finished, project) -> None:
    for by, pattern in (
        (signal.SIGINT, "04_feature/test/features-*/features-*.safetensors"),
        (signal.SIGTERM, "06_models/test/training-*/checkpoint.safetensors"),
        (signal.SIGKILL, "07_model_output/test/pictures-*/*.png"),
    ):
        code, output = project.run_killed(lambda pattern=pattern: project.found(pattern), by=by)
        assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[by], output
        if by != signal.SIGKILL:
            assert output.strip().endswith("Stopped; the same command goes on.") and "Traceback" not in output
            assert not list(project.data.rglob("*.partial*"))
    with sqlite3.connect(project.database) as database:
        statuses = [status for (status,) in database.execute("select status from runs order by start_time")]
    assert statuses == ["KILLED", "KILLED", "RUNNING"]
    code, output = project.run()
    assert code == 0, output
    expected, found = finished.contents(), project.contents()
    of_defaults = {path: content for path, content in expected.items() if path in found}
    assert of_defaults.keys() == found.keys()
    assert [path for path in found if found[path] != expected[path]] == []


def test_a_project_that_is_moved_goes_on_in_its_new_place(project, tmp_path) -> None:
    code, output = project.run("--pipelines=images")
    assert code == 0, output
    moved = tmp_path / "50% of #1?"
    moved.mkdir()
    for part in ("conf", "data", "mlflow.db", "pyproject.toml", "src"):
        (tmp_path / part).rename(moved / part)
    project.folder = moved
    code, output = project.run("--pipelines=images")
    assert code == 0, output
    assert "MLflow kept its artifacts elsewhere" in output
    with sqlite3.connect(moved / "mlflow.db") as database:
        (place,) = database.execute("select artifact_location from experiments where name = 'partcraft-test'")
        assert place == ((moved / "mlartifacts").as_uri(),)
        assert database.execute("select count(*) from runs").fetchone() == (2,)
    assert not (tmp_path / "data").exists() and not (tmp_path / "mlflow.db").exists()


@pytest.fixture
def port() -> int:
    """One that nothing listens at, below those that programs are given by chance (kedro-viz takes none above 49151)."""
    for candidate in random.sample(range(20000, 32768), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", candidate))
            return candidate
    raise AssertionError("100 ports are all taken")


def page_of(process: subprocess.Popen, address: str) -> requests.Response:
    """What a server that is starting answers; fails if it ends before."""
    for _ in range(600):
        try:
            return requests.get(address, timeout=60)
        except requests.ConnectionError:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {address}")


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.communicate()


def test_mlflow_s_pages_open_though_the_environment_is_not_activated(project, port) -> None:
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != here)
    process = project.start(f"--port={port}", command="mlflow ui", PATH=path)
    try:
        answer = page_of(process, f"http://127.0.0.1:{port}")
        assert answer.ok and "MLflow" in answer.text
    finally:
        end(process)


def test_kedro_viz_opens_with_the_user_s_own_scores(finished, port) -> None:
    process = finished.start("--no-browser", f"--port={port}", command="viz run")
    try:
        address = f"http://127.0.0.1:{port}"
        assert "Kedro-Viz" in page_of(process, address).text
        nodes = requests.get(f"{address}/api/main", timeout=60).json()["nodes"]
        (table,) = [node["id"] for node in nodes if node["name"] == "score_table"]
        preview = requests.get(f"{address}/api/nodes/{table}", timeout=60).json()["preview"]
        assert "reconstruction" in str(preview)
    finally:
        end(process)


def test_the_page_of_runs_is_that_of_the_experiment(finished, port) -> None:
    process = finished.start(f"--port={port}", "--no-browser", command="runs")
    try:
        address = next(line.split()[2] for line in process.stdout if line.startswith("Runs at "))
        client = MlflowClient(f"sqlite:///{finished.database}")
        experiment = client.get_experiment_by_name("partcraft-test").experiment_id
        page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
        assert address == f"http://127.0.0.1:{port}/{page}"
        assert requests.get(address, timeout=60).ok
        process.terminate()  # MLflow's server ends with it, and lets go of its output
        process.communicate(timeout=60)
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=60)
    finally:
        end(process)


def test_runs_are_named_described_and_have_the_options_that_they_used(finished) -> None:
    code, output = finished.run("--pipelines=parts", "--params=parts.variants=4,train.steps=4")
    assert code == 0, output
    client = MlflowClient(f"sqlite:///{finished.database}")
    experiment = client.get_experiment_by_name("partcraft-test").experiment_id
    last, *_, first = client.search_runs([experiment], order_by=["attributes.start_time DESC"])
    assert (first.info.run_name, last.info.run_name) == ("defaults", "parts, variants 4, 4 steps")
    assert {option.partition(".")[0] for option in last.data.params} == {
        *("images", "features", "base", "parts", "evaluate", "compute"),
    }
    assert "| reconstruction | " in first.data.tags["mlflow.note.content"]
    assert "| nmi | " in last.data.tags["mlflow.note.content"]
    table = client.download_artifacts(first.info.run_id, "report/scores.json")
    columns = json.loads(Path(table).read_text())["columns"]
    assert {"task", "measure", "value", "low", "high", "ceiling", "floor"} <= set(columns)
    shown = [artifact.path for artifact in client.list_artifacts(first.info.run_id, "images")]
    assert [path for path in shown if path.startswith("images/samples+step+0+") and path.endswith(".png")]
