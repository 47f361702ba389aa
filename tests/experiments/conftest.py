"""Sweeps made up: the numbers follow rules that a test can work out by hand."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SEEDS = (0, 1, 2)
WEIGHTS = ("0.1", "0.01", "0.001", "0.0001", "0.00001")
METHODS = ("partcraft", "break_a_scene", "textual_inversion")
STEPS = (100, 200, 300)


def sweep(name, option, settings, methods, weights):
    """The points of a grid over one option, settings outside, seeds inside."""
    rows = [
        {
            "sweep": name,
            "point": f"{setting}, seed {seed}",
            "setting": setting,
            "option": option,
            "seed": seed,
            "method": method,
            "run_id": f"{name}-{setting}-{seed}",
            "adapter_version": f"version of {setting} {seed}",
            "attention_weight": weight,
            "steps": 300,
        }
        for setting, method, weight in zip(settings, methods, weights, strict=True)
        for seed in SEEDS
    ]
    return pd.DataFrame(rows)


def scores_of(points):
    """EMR falls by .05 a setting and .08 a source, and differs by .01 and .03 between seeds; no FID, for a reason."""
    rng = np.random.default_rng(0)
    rank = {setting: i for i, setting in enumerate(points["setting"].unique())}
    rows = []
    for point in points.itertuples():
        for count, task in enumerate(["reconstruction", *(f"composition of {n}" for n in range(1, 5))]):
            emr = 0.7 - 0.05 * rank[point.setting] - 0.08 * count + (0, 0.01, 0.03)[point.seed]
            bounds = {"ceiling": 0.95 if count == 0 else float("nan"), "floor": 0.05, "n": 120 if count == 0 else 30}
            cosim = 0.9 - 0.02 * count + 0.01 * rng.normal()
            for measure, value in (("emr", emr), ("cosim", cosim), ("judge", emr - 0.1)):
                interval = {"value": value, "low": value - 0.02, "high": value + 0.02}
                rows.append({"run_id": point.run_id, "task": task, "measure": measure, **interval, **bounds})
        frechet = {"run_id": point.run_id, "measure": "frechet"}
        rows.append({"task": "distance", "value": 20.0 + rank[point.setting] + 0.1 * point.seed, "n": 120, **frechet})
        rows.append({"task": "fid", "value": float("nan"), "n": 120, "note": "needs more pictures", **frechet})
    columns = ["run_id", "task", "measure", "value", "low", "high", "ceiling", "floor", "n", "note"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def weights():
    """(points, scores) of five λ_attn with three seeds each."""
    methods = ["partcraft"] * len(WEIGHTS)
    points = sweep("attention_weight", "train.attention_weight", WEIGHTS, methods, map(float, WEIGHTS))
    return points, scores_of(points)


@pytest.fixture(scope="module")
def methods():
    """(points, scores) of three methods with three seeds each."""
    points = sweep("methods", "train.method", METHODS, METHODS, (0.01, 0.01, 0.0))
    return points, scores_of(points)


@pytest.fixture(scope="module")
def compositions(methods, tmp_path_factory):
    """Two pictures of every run of `methods`, the second first in turn; the grey says which it is."""
    folder = tmp_path_factory.mktemp("compositions")
    rows = []
    for i, point in enumerate(methods[0].itertuples()):
        for k, name in enumerate(("a", "b")):
            path = folder / f"{point.run_id}-{name}.png"
            Image.new("RGB", (16, 16), (20 * i + 2 * k,) * 3).save(path)
            picture = {"run_id": point.run_id, "id": name, "turn": 1 - k, "prompt": f"a ${name}$", "path": str(path)}
            rows.append(picture | {"emr": 0.5, "cosim": 0.5})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def samples(methods, tmp_path_factory):
    """Two pictures at three steps of every training of `methods`; the grey of each file says which it is."""
    folder = tmp_path_factory.mktemp("samples")
    source = folder / "real.png"
    Image.new("RGB", (16, 16), (255, 0, 0)).save(source)
    rows = []
    for i, point in enumerate(methods[0].itertuples()):
        for j, step in enumerate(STEPS):
            for k, name in enumerate(("a", "b")):
                path = folder / f"{point.run_id}-{step}-{name}.png"
                Image.new("RGB", (16, 16), (20 * i + 5 * j + 2 * k,) * 3).save(path)
                emr = 0.2 * (j + 1) + 0.1 * k + 0.01 * point.seed
                picture = {"run_id": point.run_id, "step": step, "id": name, "emr": emr, "cosim": 0.5 + emr / 2}
                rows.append(picture | {"path": str(path), "source_path": source})
    return pd.DataFrame(rows)
