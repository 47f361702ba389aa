"""The notebooks, executed on a project in which everything has run."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from partcraft_kedro.experiments.summary import summarise_seeds
from partcraft_kedro.prompts import find_tokens

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
EXPERIMENT = "partcraft-test"


def execute(name: str, data: Path, database: Path) -> dict[str, list]:
    """Run a notebook from its first cell to its last; returns every cell's outputs by the cell's id."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    environment = os.environ | {
        "PARTCRAFT_ENV": "test",
        "PARTCRAFT_DATA": str(data),
        "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
        "PARTCRAFT_ARTIFACTS": str(database.parent / "mlartifacts"),
    }
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    client.execute(env=environment)
    return {cell["id"]: cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"}


def printed(outputs: list) -> str:
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def shown(outputs: list, kind: str) -> list[str]:
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def figures_of(cells: dict[str, list]) -> dict[str, int]:
    """How many figures each cell shows, cells without one left out."""
    counts = {cell: len(shown(outputs, "image/png")) for cell, outputs in cells.items()}
    return {cell: count for cell, count in counts.items() if count}


def row_names(outputs: list) -> list[str]:
    """The index of the last table that a cell shows."""
    return re.findall(r"<tr>\s*<th[^>]*>([^<]*)</th>\s*<td", shown(outputs, "text/html")[-1])


@pytest.fixture
def one_run(finished, tmp_path) -> Path:
    """A copy of the finished project's MLflow database with a single run, which has scores."""
    database = tmp_path / "mlflow.db"
    shutil.copy(finished.database, database)
    client = MlflowClient(f"sqlite:///{database}")
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    kept = next(run.info.run_id for run in runs if "emr/reconstruction" in run.data.metrics)
    for run in runs:
        if run.info.run_id != kept:
            client.delete_run(run.info.run_id)
    return database


def add_sweep(database: Path, name: str, weights: list[str]) -> None:
    """Add a parent run, and a child like the run that is there for each value of the attention weight."""
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (model,) = client.search_runs([experiment])
    parent = client.create_run(experiment, run_name=name)
    for weight in weights:
        child = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id}, run_name=weight)
        options = model.data.params | {"train.attention_weight": weight}
        client.log_batch(
            child.info.run_id,
            metrics=[Metric(metric, value, timestamp=0, step=0) for metric, value in model.data.metrics.items()],
            params=[Param(option, value) for option, value in options.items()],
        )
        client.set_terminated(child.info.run_id)
    client.set_terminated(parent.info.run_id)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_committed_as_executed_once_and_small(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert all(cell["outputs"] for cell in cells[1:]), "python notebooks/execute.py"
    assert path.stat().st_size < 300_000


def test_parts(finished) -> None:
    cells = execute("01_parts", finished.data, finished.database)
    assert figures_of(cells) == {"records": 1, "maps": 1, "sheets": 1, "counts": 1, "own": 1}
    assert not cells["open"]  # no hints of libraries to developers
    assert row_names(cells["scores"])[:2] == ["nmi", "ari"]
    names = row_names(cells["code"])
    assert len(names) == 6 and names[0] == "0 background"
    prompts = pd.read_parquet(finished.data / "05_model_input/test/prompts.parquet")["prompt"]
    assert printed(cells["code"]).strip() in list(prompts)
    assert printed(cells["own"]).strip() == prompts.iloc[-1]  # the predictor sees what the pipeline saw


def test_compose(finished) -> None:
    cells = execute("02_compose", finished.data, finished.database)
    assert figures_of(cells) == {"ids": 1, "choose": 1, "sample": 1, "words": 4, "vary": 1}
    (table,) = shown(cells["found"], "text/html")
    columns = [[int(k) for k in re.findall(rf'class="data row\d+ col{c}" >(-?\d+)<', table)] for c in range(9)]
    asked, *found = columns
    assert asked == [token.variant for token in find_tokens(printed(cells["choose"]))]
    assert len(asked) == 6 and all(len(code) == 6 for code in found)
    green = re.search(r"([^}]*)\{\s*background-color: #bfe3c8", table)
    agreeing = sum(one == other for code in found for one, other in zip(asked, code, strict=True))
    assert (green[1].count("#T_") if green else 0) == agreeing


def test_compare_one_run(finished, one_run) -> None:
    cells = execute("03_compare_runs", finished.data, one_run)
    assert printed(cells["runs"]).startswith(f"1 of the 1 runs of {EXPERIMENT}")
    assert printed(cells["options"]).startswith("0 of ")
    assert {"emr/reconstruction", "cosim/composition.4", "parts/nmi"} <= set(row_names(cells["scores"]))
    assert figures_of(cells) == {"curves": 1, "option": 1}
    assert printed(cells["sweeps"]).startswith("No sweep has been summed up yet")


def test_compare_a_sweep(finished, one_run, tmp_path) -> None:
    add_sweep(one_run, "by attention weight", ["0.1", "0.001"])
    key = {"sweep": "weights", "option": "train.attention_weight", "method": "partcraft", "seed": 0}
    points = pd.DataFrame([key | {"setting": str(w), "attention_weight": w, "run_id": f"r{w}"} for w in (0.1, 0.001)])
    emr = {"task": "reconstruction", "measure": "emr", "ceiling": 1.0, "floor": 0.0, "n": 4.0, "note": None}
    scores = pd.DataFrame([emr | {"run_id": f"r{w}", "value": w + 0.25} for w in (0.1, 0.001)])
    data = tmp_path / "data"
    shutil.copytree(finished.data, data)
    summarise_seeds(points, scores, "test").to_parquet(data / "08_reporting/test/sweep_summary.parquet")
    cells = execute("03_compare_runs", data, one_run)
    assert row_names(cells["sweeps"]) == ["0.1", "0.001"]
    assert "<td>0.350</td>" in shown(cells["sweeps"], "text/html")[0]
    assert printed(cells["runs"]).startswith(f"3 of the 4 runs of {EXPERIMENT}")
    assert shown(cells["runs"], "text/html")[0].count("<td>by attention weight</td>") == 2
    assert printed(cells["options"]).startswith("1 of ")
    assert re.findall(r"<td>([^<]*)</td>", shown(cells["options"], "text/html")[0]) == ["0.01", "0.1", "0.001"]
    assert figures_of(cells) == {"curves": 1, "option": 1}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("01_parts", "There is no discovery_scores yet: run `kedro run --pipelines=parts --env=test`."),
        ("02_compose", "There is no adapter yet: run `kedro run --pipelines=train --env=test`."),
        ("03_compare_runs", "No run of partcraft-test has been evaluated yet: run `kedro run --env=test`."),
    ],
)
def test_without_results_one_sentence_says_what_to_run(tmp_path, name: str, told: str) -> None:
    with pytest.raises(CellExecutionError) as caught:
        execute(name, tmp_path / "data", tmp_path / "mlflow.db")
    assert caught.value.ename == "UserError"
    assert caught.value.evalue == told
    assert "Traceback" not in str(caught.value) and f"Error: {told}" in str(caught.value)
