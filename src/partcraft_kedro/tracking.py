"""What goes to MLflow while nodes run. Without an active run nothing is logged."""

from typing import Any

import pandas as pd
from PIL import Image


def active_mlflow() -> Any:
    """The mlflow module while a run is active, else None."""
    import mlflow

    return mlflow if mlflow.active_run() else None


def log_step(step: int, values: dict[str, float]) -> None:
    """Log one point of each curve."""
    if mlflow := active_mlflow():
        mlflow.log_metrics(values, step=step)


def log_curve(history: pd.DataFrame) -> None:
    """Log whole curves, one column each, over the column `step`."""
    for row in history.to_dict("records"):
        log_step(int(row.pop("step")), row)


def log_image(step: int, image: Image.Image) -> None:
    """Log one picture of the series `samples`, which MLflow shows over steps and beside those of other runs."""
    if mlflow := active_mlflow():
        mlflow.log_image(image, key="samples", step=step)


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """One row of pictures of equal size."""
    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        row.paste(picture, (i * width, 0))
    return row
