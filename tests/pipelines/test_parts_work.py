import numpy as np
import pandas as pd
import torch

from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.features.crops import read_changes
from partcraft_kedro.options import BaseModelOptions, ComputeOptions, FeaturesOptions, PartsOptions
from partcraft_kedro.parts.discovery import whitening_of
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.pipelines.features.nodes import extract_features
from partcraft_kedro.pipelines.parts.nodes import discover_parts
from partcraft_kedro.pipelines.parts.work import some_training
from partcraft_kedro.stages import Stages


def test_some_training_pictures_are_drawn_anew_for_each_seed_and_all_taken_where_there_are_few() -> None:
    records = pd.DataFrame({"split": ["train", "test"] * 500})
    rows = some_training(records, 100, 0, "trial")
    assert len(set(rows)) == 100
    assert (np.diff(rows) > 0).all()
    assert (records["split"][rows] == "train").all()
    assert np.array_equal(rows, some_training(records, 100, 0, "trial"))
    assert not np.array_equal(rows, some_training(records, 100, 1, "trial"))
    assert 300 < rows.mean() < 700  # of all of them
    assert np.array_equal(some_training(records, 500, 0, "trial"), np.arange(0, 1000, 2))


def test_crops_are_compared_once_and_for_whitened_parts_alone(tmp_path) -> None:
    sizes = {"classes": 2, "pictures_per_class": 3, "test_fraction": 0.3, "seed": 0}
    records = draw_dataset("creatures", tmp_path / "drawn", tmp_path, **sizes)
    base, compute, stages = BaseModelOptions(device="cpu"), ComputeOptions(), Stages(tmp_path, "test")
    features = extract_features(records, FeaturesOptions(), base, compute, stages)

    def discover(**options: object) -> PartPredictor:
        parts = PartsOptions(variants=2, n_init=1, **options)
        return PartPredictor.load(discover_parts(features, records, parts, base, compute, stages))

    assert discover(discovery="trimmed", parts=3).whitening is None
    assert not list(tmp_path.rglob("changes-*"))
    found = discover(discovery="whitened", parts=3)
    (changes,) = tmp_path.rglob("changes-*.safetensors")
    torch.testing.assert_close(found.whitening, whitening_of(read_changes(changes.parent)))
    stamp = changes.stat().st_mtime_ns
    assert torch.equal(discover(discovery="whitened", parts=2).whitening, found.whitening)
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("changes-*")] == [stamp]
    discover(discovery="whitened", parts=2, seed=1)
    assert len(list(tmp_path.rglob("changes-*"))) == 2
