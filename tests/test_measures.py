"""A measure is a row of one table, and everything else follows from it."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset, Version
from PIL import Image

from partcraft_kedro.datasets import FolderDataset
from partcraft_kedro.evaluation.figures import reconstructions_figure, scores_figure
from partcraft_kedro.evaluation.measures import MEASURES, Measure, nest, tabulate, title_of
from partcraft_kedro.evaluation.scores import summarise
from partcraft_kedro.experiments.plots import learning_figure, sweep_figure
from partcraft_kedro.experiments.summary import (
    column_titles,
    compare_with,
    summarise_seeds,
    table_of_differences,
    table_of_headlines,
    table_of_points,
    table_of_sweep,
)
from partcraft_kedro.hooks import PartCraftHooks, _table_of_scores
from partcraft_kedro.tracking import log_samples


@pytest.fixture
def new(monkeypatch):
    """Adds a measure to the table for the time of a test."""

    def add(title: str, **properties: bool) -> None:
        monkeypatch.setitem(MEASURES, "sharpness", Measure("sharpness", title, "how sharp edges are", **properties))

    return add


def pictures(**measures: float) -> pd.DataFrame:
    """Two reconstructions, a composition of two and a transfer; each measure ten times as much for the last two, with
    ten for a ceiling and no floor."""
    rows = pd.DataFrame(
        [("reconstruction", 1, ""), ("reconstruction", 1, ""), ("composition", 2, ""), ("transfer", 2, "tail")],
        columns=["kind", "source_count", "transferred"],
    )
    for name, value in measures.items():
        rows[name] = value * np.array([1, 1, 10, 10])
        rows[f"{name}_ceiling"], rows[f"{name}_floor"] = 10.0, np.nan
    return rows


def registered(client, folder, tree: dict) -> dict[str, str]:
    """The tags of the adapter that a run with these metrics registers."""
    adapter = FolderDataset(
        filepath=str(folder / "adapter"), version=Version(None, "now"), metadata={"mlflow_artifact": "adapter"}
    )
    trained = folder / "trained"
    trained.mkdir()
    (trained / "adapter.json").write_text(json.dumps({"training": {"fingerprint": "f"}}))
    adapter.save(trained)
    hooks = PartCraftHooks()
    hooks.after_catalog_created(DataCatalog({"adapter": adapter, "metrics": MemoryDataset()}))
    with mlflow.start_run() as run:
        hooks.after_dataset_saved("adapter", trained)
        hooks.after_dataset_saved("metrics", {"discovery": {}, **tree})
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    return {name: value for name, value in version.tags.items() if name != "fingerprint"}


def test_a_new_measure_is_tabulated_drawn_compared_and_registered(new, client, tmp_path):
    new("sharpness of edges", bounded=False)
    rows = summarise(pictures(emr=0.05, sharpness=3.0), resamples=20, seed=0)
    table = tabulate(rows)
    ours = table[table["measure"] == "sharpness"].set_index("task")
    assert ours["value"].to_dict() == {"reconstruction": 3, "composition of 2": 30, "transfer of tail": 30}
    assert ours["ceiling"].eq(10).all() and ours["floor"].isna().all() and ours["n"].tolist() == [2, 1, 1]

    figure = scores_figure(table)
    emr, sharpness = figure.axes
    assert (emr.get_title(), sharpness.get_title()) == ("EMR", "sharpness of edges")
    assert emr.get_xlim()[1] < 1.1 and sharpness.get_xlim()[1] > 30

    facts = {"sweep": "s", "option": "train.rank", "method": "partcraft", "attention_weight": 0.01, "steps": 3}
    points = pd.DataFrame([facts | {"setting": name, "seed": 0, "run_id": name} for name in ("2", "4")])
    points["adapter_version"] = "now"
    scores = pd.concat([table.assign(run_id=name) for name in points["run_id"]])
    summary = summarise_seeds(points, scores, "creatures")
    assert table_of_sweep(summary)["reconstruction sharpness of edges"].tolist() == ["3.000"] * 2
    assert table_of_sweep(summary)["composition of 2 sharpness of edges"].tolist() == ["30.00"] * 2
    assert "reconstruction sharpness of edges" not in table_of_headlines(summary)
    differences = table_of_differences(compare_with(points, scores, "2"))
    assert differences.loc["4", "reconstruction sharpness of edges"] == "+0.000"
    of_part = pd.concat([scores, scores.assign(task="part head")])
    assert table_of_points(points, of_part)["transfer of tail sharpness of edges"].tolist() == [30, 30]
    assert not [name for name in table_of_points(points, of_part) if name.startswith("part head")]
    assert [axis.get_title() for axis in sweep_figure(summary).axes] == ["EMR", "sharpness of edges"]

    tags = registered(client, tmp_path, nest(rows))
    assert {name: value for name, value in tags.items() if "sharpness" in name} == {
        "sharpness/reconstruction": "3.0000",
        "sharpness/composition.2": "30.0000",
        "sharpness/transfer.tail": "30.0000",
    }


def test_a_measure_that_runs_are_not_compared_by_is_in_the_score_table_alone(new, client, tmp_path):
    new("sharpness", compared=False)
    rows = summarise(pictures(emr=0.05, sharpness=0.03), resamples=20, seed=0)
    assert "sharpness" in set(tabulate(rows)["measure"])
    assert ("reconstruction", "sharpness") not in column_titles()
    assert not [name for name in registered(client, tmp_path, nest(rows)) if "sharpness" in name]


def test_a_headline_is_also_shown_where_there_is_little_room(new):
    new("sharpness", headline=True)
    scores = tabulate(summarise(pictures(sharpness=0.03), resamples=20, seed=0)).assign(run_id="r")
    points = pd.DataFrame(
        {"sweep": ["s"], "option": "train.rank", "setting": "2", "method": "partcraft", "attention_weight": 0.01}
    ).assign(run_id="r")
    assert list(table_of_headlines(summarise_seeds(points, scores, "creatures"))) == [
        "setting",
        "seeds",
        "reconstruction sharpness",
    ]


def test_a_measure_of_swaps_is_left_out_where_nothing_was_swapped(new):
    new("sharpness", of_swaps=True)
    rows = pictures(emr=0.05, sharpness=0.03)
    rows.loc[rows["kind"] == "reconstruction", "sharpness"] = np.nan
    table = tabulate(summarise(rows, resamples=20, seed=0))
    assert table.loc[table["measure"] == "sharpness", "task"].tolist() == ["composition of 2", "transfer of tail"]


def test_a_new_measure_of_codes_is_shown_of_pictures_sampled_while_training(new, client, tmp_path):
    new("sharpness of edges", of_codes=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "sampled.png")
    samples = pd.DataFrame({"step": [10, 10], "id": ["a", "b"], "emr": 0.5, "cosim": 0.5, "sharpness": [0.2, 0.4]})
    samples["path"] = samples["source_path"] = "sampled.png"
    with mlflow.start_run() as run:
        log_samples(samples, tmp_path)
    assert client.get_run(run.info.run_id).data.metrics["training/sample_sharpness"] == pytest.approx(0.3)

    points = pd.DataFrame({"setting": ["2"], "seed": 0, "run_id": "r"})
    figure = learning_figure(points, samples.assign(run_id="r"))
    titles = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert titles == [f"{title} of sampled pictures" for title in ("EMR", "CoSim", "sharpness of edges")]

    blank, prompts = np.zeros((2, 8, 8, 3), np.uint8), samples.assign(prompt="a bird", sources=[["a"], ["b"]])
    told = [text.get_text().split("\n\n")[1] for text in reconstructions_figure(blank, blank, prompts).texts[1:]]
    assert told == [f"EMR 0.50\nCoSim 0.50\nsharpness of edges {value}" for value in ("0.20", "0.40")]


def test_the_registered_adapter_has_all_that_runs_are_compared_by(client, tmp_path):
    """FID and part identity, which not every run has, as well."""
    measured = {"value": 0.25, "n": 100, "note": None}
    compared = ("emr", "cosim", "judge", "shape", "part_identity")
    of_pictures = dict.fromkeys([*compared, "transfer", "preservation", "leakage", "iou_found_mask"], measured)
    of_sets = {"frechet": measured, "kernel": measured, "density": measured, "coverage": {"value": None, "n": 3}}
    tree = {"reconstruction": of_pictures, "transfer": {"tail": of_pictures}, "distance": of_sets, "fid": of_sets}
    tree["part"] = {"head": of_pictures, "tail": of_pictures}  # a tag for each would hide the others
    tasks = [f"{name}/{task}" for task in ("reconstruction", "transfer.tail") for name in compared]
    assert registered(client, tmp_path, tree) == dict.fromkeys([*tasks, "distance/frechet", "fid/frechet"], "0.2500")


def test_a_run_s_note_has_no_parts_and_no_regions(new):
    """They are in the report: people read one table of tasks."""
    new("sharpness of edges")
    tasks, names = ("composition of 2", "part head", "reconstruction"), ("emr", "leakage", "iou_found_mask", "frechet")
    rows = [{"task": task, "measure": name, "value": 0.25} for task in tasks for name in ("sharpness", *names)]
    rows.append({"task": "discovery", "measure": "nmi", "value": 0.5})
    note = _table_of_scores(tabulate(rows))
    assert list(note.columns) == ["task", "sharpness of edges", "EMR", "leakage"]
    assert note.to_numpy().tolist() == [[task, *["0.250"] * 3] for task in ("composition of 2", "reconstruction")]


@pytest.mark.parametrize(
    ("task", "name", "title"),
    [
        ("reconstruction", "emr", "reconstruction EMR"),
        ("composition of 2", "part_identity", "composition of 2 part identity"),
        ("fid", "frechet", "FID"),
        ("distance", "frechet", "Fréchet distance"),
        ("fid", "kernel", "KID"),
        ("discovery", "nmi", "discovery nmi"),  # of the parts: by its own name
    ],
)
def test_titles(task, name, title):
    assert title_of(task, name) == title


def test_rows_make_a_table_and_a_tree_that_say_the_same():
    rows = [
        {"task": "reconstruction", "measure": "emr", "value": 0.5, "low": 0.4, "high": 0.6, "n": 4, "ceiling": None},
        {"task": "transfer of bird of prey", "measure": "emr", "value": 0.25},
        {"task": "fid", "measure": "frechet", "value": None, "n": 4, "features": "Inception", "note": "needs more"},
    ]
    table = tabulate(rows)
    assert table["value"].tolist() == [0.5, 0.25, pytest.approx(np.nan, nan_ok=True)]
    assert table["ceiling"].isna().all() and table["n"].tolist()[::2] == [4, 4]
    assert table["note"].fillna("").tolist() == ["", "", "needs more"]
    assert nest(rows) == {
        "reconstruction": {"emr": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 4, "ceiling": None}},
        "composition": {},
        "transfer": {"bird of prey": {"emr": {"value": 0.25}}},
        "fid": {"frechet": {"value": None, "n": 4, "features": "Inception", "note": "needs more"}},
    }
    assert tabulate([]).empty
