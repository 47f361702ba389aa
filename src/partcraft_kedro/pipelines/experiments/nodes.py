"""What sweeps found: the paper's tables and figures."""

import json

import pandas as pd

from partcraft_kedro.errors import UserError
from partcraft_kedro.options import DataOptions

_POINT = ["sweep", "sweep_id", "point", "setting", "option", "seed", "method", "attention_weight", "steps"]
_RUNS = ["run_id", "adapter_version"]


def collect_points(data: DataOptions) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Every finished point of the dataset's sweeps, or, within a sweep, of that one.

    Returns the points, their scores, and the pictures sampled while they were trained, each by the MLflow run's id.
    """
    place = f"{data.dataset}{data.point}"
    books = sorted((data.folder / "08_reporting" / place).rglob("point.json"), key=lambda path: path.stat().st_mtime_ns)
    if not books:
        raise UserError("No sweep has a finished point yet: run `kedro sweep` first.")
    points, scores, samples = [], [], []
    for book in books:
        point = json.loads(book.read_text()) | {"sweep_id": book.parents[1].name}
        points.append(point)
        scores.append(pd.read_parquet(book.with_name("score_table.parquet")).assign(run_id=point["run_id"]))
        of_models = data.folder / "06_models" / book.parent.relative_to(data.folder / "08_reporting")
        samples.append(pd.read_parquet(of_models / "training_samples.parquet").assign(run_id=point["run_id"]))
    return pd.DataFrame(points)[_POINT + _RUNS], pd.concat(scores), pd.concat(samples)
