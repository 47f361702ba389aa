"""What goes to MLflow while nodes run. Without an active run nothing is logged."""

import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from partcraft_kedro.evaluation.measures import names_with


def active_mlflow() -> Any:
    """The mlflow module while a run is active, else None."""
    import mlflow

    return mlflow if mlflow.active_run() else None


def address_of_runs() -> str | None:
    """Where MLflow's pages show a run of the active one's experiment, its id put behind; None without an active run.

    A database has no pages of its own: they are where `make mlflow` serves them.
    """
    mlflow = active_mlflow()
    if not mlflow:
        return None
    server = mlflow.get_tracking_uri()
    pages = server if server.startswith("http") else "http://127.0.0.1:5000"
    return f"{pages}/#/experiments/{mlflow.active_run().info.experiment_id}/runs/"


def log_step(step: int, values: dict[str, float]) -> None:
    """Log one point of each curve of training."""
    if mlflow := active_mlflow():
        mlflow.log_metrics({f"training/{name}": value for name, value in values.items()}, step=step)


def log_curve(history: pd.DataFrame) -> None:
    """Log whole curves, one column each, over the column `step`, at once; a run that has them already keeps them."""
    if mlflow := active_mlflow():
        from mlflow.entities import Metric

        curves = history.set_index("step").add_prefix("training/")
        client, run = mlflow.MlflowClient(), mlflow.active_run().info.run_id
        if client.get_run(run).data.metrics.keys() >= set(curves):
            return
        now = time.time_ns() // 10**6
        points = curves.stack().items()
        client.log_batch(run, [Metric(name, float(value), now, int(step)) for (step, name), value in points])


def log_samples(samples: pd.DataFrame, folder: Path) -> None:
    """Log pictures sampled at one step, as an image that MLflow shows over steps and beside those of other runs, and
    their mean by every measure of codes. Step 0 shows the real pictures.

    samples: columns step, those measures, and path and source_path, relative to `folder`.
    """
    if mlflow := active_mlflow():
        step = int(samples["step"].iloc[0])
        log_step(step, {f"sample_{measure}": samples[measure].mean() for measure in names_with(of_codes=True)})
        sampled = _grid([Image.open(folder / path) for path in samples["path"]])
        if not mlflow.MlflowClient().list_artifacts(mlflow.active_run().info.run_id, "images"):
            mlflow.log_image(
                _grid([Image.open(folder / path) for path in samples["source_path"]]), key="samples", step=0
            )
        mlflow.log_image(sampled, key="samples", step=step)


def _grid(pictures: list[Image.Image]) -> Image.Image:
    """A square of pictures, each at least 256 pixels wide: MLflow shrinks what it shows to so much in all."""
    side = max(256, pictures[0].width)
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    grid = Image.new("RGB", (side * columns, side * rows), "white")
    for i, picture in enumerate(pictures):
        resized = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        grid.paste(resized, (i % columns * side, i // columns * side))
    return grid
