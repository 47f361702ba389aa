"""Sweeps as their users start them."""

import json
import shutil
import signal
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from partcraft_kedro.options import SweepOptions
from partcraft_kedro.sweeps.book import Book
from partcraft_kedro.sweeps.grid import points_of
from partcraft_kedro.sweeps.processes import Command, Process
from partcraft_kedro.sweeps.run import _gpus, shared_outputs
from partcraft_kedro.weights import TINY

SWEEPS = "08_reporting/test/sweeps"


def test_a_grid_has_every_combination_with_every_seed() -> None:
    points = points_of(SweepOptions(grid={"train.rank": [2, 4], "train.method": ["partcraft"]}, seeds=[0, 7]))
    assert [(point.setting, point.seed) for point in points] == [
        ("rank=2, method=partcraft", 0),
        ("rank=4, method=partcraft", 0),
        ("rank=2, method=partcraft", 7),
        ("rank=4, method=partcraft", 7),
    ]
    assert points[3].options == {"train.rank": 4, "train.method": "partcraft", "train.seed": 7}
    assert points[3].name == "rank-4_method-partcraft_seed-7"
    assert points[3].title == "rank 4, partcraft, seed 7"
    single = points_of(SweepOptions(grid={"train.attention_weight": [0.1]}, options={"train.method": "dreambooth"}))
    assert [point.setting for point in single] == ["0.1"] * 3
    assert [point.title for point in single] == ["λ 0.1, seed 0", "λ 0.1, seed 1", "λ 0.1, seed 2"]
    assert single[2].options == {"train.method": "dreambooth", "train.attention_weight": 0.1, "train.seed": 2}


@pytest.mark.parametrize(
    ("varied", "shared"),
    [
        (["train.rank"], ["prompts", "latents"]),
        (["train.rank", "base.size"], ["prompts"]),
        (["parts.parts"], ["features", "latents"]),
        (["features.layer", "parts.parts"], ["records", "latents"]),
        (["images.seed"], []),
    ],
)
def test_what_no_option_of_the_grid_changes_is_shared(varied: list[str], shared: list[str]) -> None:
    assert shared_outputs(SweepOptions(grid={option: [1, 2] for option in varied})) == shared


def test_a_point_is_run_by_one_command_alone(tmp_path) -> None:
    (tmp_path / "stage.json").write_text(
        json.dumps({"stage": "ranks", "seen": {"sweep": {"grid": {"train.rank": [2]}}, "points": {}}})
    )
    (point, *_), book = points_of(SweepOptions(grid={"train.rank": [2]})), Book(tmp_path)
    one, other = (Process(point, book, Command(None, {}, ""), tracker=None) for _ in range(2))
    assert one.take() and not other.take()
    one.let_go()
    assert other.take() and not one.take()


@pytest.mark.parametrize(
    ("device", "gpus"), [("auto", ["0", "3"]), ("cuda", ["0", "3"]), ("cuda:1", []), ("cpu", []), ("mps", [])]
)
def test_points_are_spread_over_gpus_unless_the_user_chose_one(device, gpus, monkeypatch) -> None:
    """A point that is shown one GPU alone would not find cuda:1."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert _gpus(device) == gpus


def books(project) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in project.data.glob(f"{SWEEPS}/*/*/point.json")}


def table(project, folder: str) -> pd.DataFrame:
    return pd.read_parquet(project.data / f"08_reporting/test/{folder}/score_table.parquet")


@pytest.fixture(scope="module")
def swept(tmp_path_factory, finished):
    """A sweep of two points, killed when the first was done, beside another sweep that was left alone; then gone on
    with, by two commands at once that have half of it each."""
    project = type(finished)(tmp_path_factory.mktemp("swept"))
    ranks = project.start("--grid=train.rank=2", "--seeds=0", command="sweep")
    weights = ("attention_weight", "--seeds=0", "--grid=train.attention_weight=0.1,0.01")
    project.run_killed(  # one at a time; then two
        lambda: project.found(f"{SWEEPS}/attention_weight-*/0.1_seed-0/point.json"), *weights, command="sweep"
    )
    output, _ = ranks.communicate(timeout=600)
    assert ranks.returncode == 0, output
    before = books(project)
    first_half = project.start(*weights, "--only=1/2", command="sweep")
    code, output = project.run(*weights, "--only=2/2", command="sweep")
    assert code == 0, output
    told, _ = first_half.communicate(timeout=600)  # its point was done before
    assert first_half.returncode == 0 and "the report is made with the last one" in told, told
    return project, before, books(project), output


def test_points_that_are_done_are_not_run_again(swept) -> None:
    _, before, after, _ = swept
    assert before.keys() == {"0.1_seed-0", "2_seed-0"}
    assert after.keys() == {"0.1_seed-0", "2_seed-0", "0.01_seed-0"}
    assert all(after[name] == book for name, book in before.items())


def test_sweeps_at_once_share_stages_and_keep_their_results_apart(swept, finished) -> None:
    project, _, _, _ = swept
    for stage in ("01_raw/test/drawings", "04_feature/test/features", "05_model_input/test/discovery"):
        assert len(list(project.data.glob(f"{stage}-*"))) == 1
    assert len(list(project.data.glob("06_models/test/training-*"))) == 3
    # The default's point scores as the default does outside of any sweep, and the others otherwise.
    default = table(finished, "")
    (folder,) = project.data.glob(f"{SWEEPS}/attention_weight-*/0.01_seed-0")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "score_table.parquet"), default)
    for other in ("attention_weight-*/0.1_seed-0", "grid-rank-*/2_seed-0"):
        (folder,) = project.data.glob(f"{SWEEPS}/{other}")
        assert not pd.read_parquet(folder / "score_table.parquet").equals(default)


def test_every_point_is_a_child_of_one_run(swept) -> None:
    project, _, after, _ = swept
    client = mlflow.MlflowClient(f"sqlite:///{project.database}")
    for sweep in project.data.glob(f"{SWEEPS}/*"):
        parent = client.get_run(json.loads((sweep / "sweep.json").read_text())["run_id"])
        assert parent.info.status == "FINISHED"
        assert parent.info.run_name == sweep.name.rpartition("-")[0]
        children = client.search_runs(
            [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        )
        points = {book["run_id"]: name for name, book in after.items() if (sweep / name).exists()}
        assert {child.info.run_id for child in children} == points.keys()  # the killed attempt's is gone
        assert {child.info.status for child in children} == {"FINISHED"}
        for child in children:
            assert "emr/reconstruction" in child.data.metrics
            version = child.data.tags["adapter_version"]
            folder = project.data / f"06_models/test/sweeps/{sweep.name}/{points[child.info.run_id]}/adapter"
            assert [path.name for path in folder.iterdir()] == [version]
            (registered,) = client.search_model_versions(f"run_id = '{child.info.run_id}'")
            assert float(registered.tags["emr/reconstruction"]) == pytest.approx(
                child.data.metrics["emr/reconstruction"], abs=1e-4
            )
            assert (Path(registered.source.removeprefix("file://")) / "adapter.json").exists()


def test_a_finished_sweep_runs_nothing(swept) -> None:
    project, _, after, _ = swept
    begun = time.time()
    code, output = project.run("--grid=train.rank=2", "--seeds=0", command="sweep")
    assert code == 0, output
    assert books(project) == after
    assert all(path.stat().st_mtime < begun for path in project.data.glob("06_models/test/*/*"))


def test_a_point_that_fails_stops_no_other_and_is_run_again_alone(swept) -> None:
    project, _, _, _ = swept
    encoder = project.data.parent / "encoder"
    grid = (f"--grid=evaluate.part_identity={encoder},null", "--seeds=0", "--params=train.rank=2", "--parallel=2")
    code, output = project.run(*grid, command="sweep")
    last = output.strip().splitlines()[-1]
    assert code == 1 and "Traceback" not in output
    assert last.startswith("Error: 1 of 2 points of grid-part_identity failed") and "encoder_seed-0/log.txt" in last
    (log,) = project.data.glob(f"{SWEEPS}/grid-part_identity-*/*encoder_seed-0/log.txt")
    assert "is neither 'tiny', nor a folder" in log.read_text()
    (done,) = project.data.glob(f"{SWEEPS}/grid-part_identity-*/*/point.json")
    stamp = done.stat().st_mtime_ns

    shutil.copytree(TINY / "feature_extractor", encoder)  # the cause is mended
    weights = encoder / "model.safetensors"
    save_file({key: 1.1 * value for key, value in load_file(weights).items()}, weights, {"format": "pt"})
    code, output = project.run(*grid, command="sweep")
    assert code == 0, output
    assert done.stat().st_mtime_ns == stamp
    assert len(list(project.data.glob(f"{SWEEPS}/grid-part_identity-*/*/point.json"))) == 2


def test_a_sweep_that_is_told_to_end_ends_its_points_too(project) -> None:
    def computes() -> bool:
        return project.found("01_raw/test/drawings-*/stage.json")

    grid = ("--grid=train.rank=2", "--seeds=0")
    code, output = project.run_killed(computes, *grid, command="sweep", by=signal.SIGTERM)
    assert code == 143 and output.strip().endswith("Stopped; the same command goes on.")
    assert "Traceback" not in output
    client = mlflow.MlflowClient(f"sqlite:///{project.database}")
    experiment = client.get_experiment_by_name("partcraft-test").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED", "KILLED"]


def test_the_table_and_the_page_lead_to_the_runs(swept) -> None:
    project, _, after, output = swept
    (sweep,) = project.data.glob(f"{SWEEPS}/attention_weight-*")
    assert f"{sweep.name}: mean over seeds" in output and str(sweep / "experiments.html") in output
    page = (sweep / "experiments.html").read_text()
    summary = pd.read_parquet(sweep / "sweep_summary.parquet")
    assert set(summary["setting"]) == {"0.1", "0.01"}
    for name in ("0.1_seed-0", "0.01_seed-0"):
        assert after[name]["run_id"] in page and after[name]["adapter_version"] in page
    client = mlflow.MlflowClient(f"sqlite:///{project.database}")
    parent = client.get_run(json.loads((sweep / "sweep.json").read_text())["run_id"])
    assert "| 0.01 |" in parent.data.tags["mlflow.note.content"]
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/experiments.html", "report/attention_weight.png", "report/sweep_summary.parquet"} <= artifacts
    code, output = project.run("--pipelines=experiments")
    assert code == 0, output
    everything = pd.read_parquet(project.data / "08_reporting/test/sweep_summary.parquet")
    assert {"attention_weight", "grid-rank"} <= set(everything["sweep"])


def test_without_a_sweep_the_report_says_how_to_run_one(project) -> None:
    code, output = project.run("--pipelines=experiments")
    assert code == 0, output
    assert "kedro sweep" in (project.data / "08_reporting/test/experiments.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["atention_weight"], "There is no sweep 'atention_weight'"),
        (["--grid=train.rnak=2"], "rnak"),
        (["--grid=trian.rank=2"], "no group of options 'trian': did you mean 'train'?"),
        (["--grid=train.rank=2,-1"], "rank"),
        (["--grid=train.rank"], "'train.rank' is not of the form"),
        (["--grid=train.rank=[2"], "cannot be read"),
        (["--grid=train=2"], "train"),
        (["--grid=train.rank=2,2"], "repeat"),
        (["--seeds=0,0"], "repeat"),
        (["--grid=train.seed=1,2"], "--seeds"),
        (["--grid=train.rank=2", "--grid=train.rank=4"], "twice"),
        (["attention_weight", "atention_weight"], "There is no sweep 'atention_weight'"),
        (["--seeds=one"], "'one' is not of the form"),
        (["--only=9/8"], "'9/8' is not of the form 3/8"),
        (["--params=compute.engine=ray"], "mlflow.db is a database of one machine: start `mlflow server"),
        (["one", "two", "--grid=train.rank=2"], "one name"),
        (["../one", "--grid=train.rank=2"], "'../one' is no name"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(project, arguments: list[str], told: str) -> None:
    code, output = project.run(*arguments, command="sweep")
    assert code != 0 and told in output.strip().splitlines()[-1] and "Traceback" not in output
    assert not list(project.data.iterdir())
