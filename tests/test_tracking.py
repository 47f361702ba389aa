from pathlib import Path

import mlflow
import pandas as pd
from kedro.io import DataCatalog, MemoryDataset
from PIL import Image

from partcraft_kedro.hooks import PartCraftHooks
from partcraft_kedro.tracking import address_of_runs, log_curve, log_samples


def test_curves_are_logged_in_one_batch_and_once_a_run(client, monkeypatch):
    history = pd.DataFrame({"step": [10, 20, 30], "loss": [3.0, 2.0, 1.5], "share": [0.1, 0.2, 0.3]})
    batches = []
    whole = mlflow.MlflowClient.log_batch
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *given: (batches.append(given), whole(*given))[1])
    with mlflow.start_run() as run:
        log_curve(history)
        log_curve(history)
    assert len(batches) == 1
    for name in ("loss", "share"):
        points = client.get_metric_history(run.info.run_id, f"training/{name}")
        assert [(point.step, point.value) for point in points] == list(zip(history["step"], history[name], strict=True))


def test_without_a_run_nothing_is_logged(client):
    log_curve(pd.DataFrame({"step": [1], "loss": [1.0]}))
    assert client.search_runs(["1"]) == []


def test_metrics_of_parts_with_any_name_are_logged(client):
    """MLflow refuses apostrophes and the like in a metric's name, and a user's part may have one."""
    hooks = PartCraftHooks()
    hooks.after_catalog_created(DataCatalog({"metrics": MemoryDataset()}))
    transfer = {"bird's beak and tail": {"emr": {"value": 0.25, "note": None}}}
    with mlflow.start_run() as run:
        distance = {"frechet": {"value": 2.0, "n": 9}}
        hooks.after_dataset_saved("metrics", {"discovery": {}, "transfer": transfer, "distance": distance})
    logged = client.get_run(run.info.run_id).data.metrics
    assert logged == {"emr/transfer.birds beak and tail": 0.25, "distance/frechet": 2.0}


def test_runs_are_shown_on_the_pages_of_make_mlflow(client):
    assert address_of_runs() is None
    with mlflow.start_run() as run:
        assert address_of_runs() == f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/"


def test_samples_are_a_square_of_large_pictures_from_step_0(client, tmp_path):
    for name, colour in (("drawn", "red"), ("real", "blue")):
        Image.new("RGB", (128, 128), colour).save(tmp_path / f"{name}.png")
    of_step = {"id": list("abcde"), "emr": 0.5, "cosim": 0.5, "path": "drawn.png", "source_path": "real.png"}
    with mlflow.start_run() as run:
        for step in (125, 250):
            log_samples(pd.DataFrame({"step": step} | of_step), tmp_path)
    logged = [Path(file.path) for file in client.list_artifacts(run.info.run_id, "images")]
    pictures = {path.name.split("+")[2]: path for path in logged if path.suffix == ".png"}
    assert pictures.keys() == {"0", "125", "250"} and len([path for path in logged if path.suffix == ".png"]) == 3
    for step, colour in (("0", (0, 0, 255)), ("125", (255, 0, 0))):
        picture = Image.open(client.download_artifacts(run.info.run_id, str(pictures[step])))
        assert (picture.size, picture.getpixel((0, 0))) == ((768, 512), colour)
        assert picture.getpixel((767, 511)) == (255, 255, 255)  # five of six places
