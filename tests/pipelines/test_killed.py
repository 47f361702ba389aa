"""Ten kills, and two runs at once; benchmarks/killed.py and beside.py make more."""

import sys

import numpy as np
import pytest

from beside import OPTIONS, artifacts, run_beside
from runs import STAGE_OF, Run, contents, differing, of_the_same_folders

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked, and killed by a signal")


def test_runs_that_are_killed_end_with_the_same_bytes(finished, tmp_path) -> None:
    rng = np.random.default_rng()
    nodes = list(STAGE_OF)
    chosen = [nodes[i] for i in sorted(rng.choice(len(nodes), 9, replace=False))]
    for mark in [None, *(f"Running node: {node}" for node in chosen)]:
        run = Run(tmp_path, project=finished.folder)
        while mark is None and not any(tmp_path.glob("*.db*")):  # until MLflow's database is being made
            assert run.wait(0.005) is None, run.output
        assert mark is None or run.wait_until_told(mark), f"{chosen}: {run.output}"
        run.wait(rng.uniform(0, 0.5))
        run.kill()
    Run(tmp_path, project=finished.folder).finish()
    (training,) = tmp_path.glob("data/06_models/test/training-*")
    # As if it had been killed when all was done but to remove the checkpoint, and to say so.
    (training / "checkpoint.safetensors").touch()
    (training / "finished.json").unlink()
    Run(tmp_path, "--pipelines=train", project=finished.folder).finish()
    found = contents(tmp_path / "data")
    assert differing(found, of_the_same_folders(contents(finished.data), found)) == [], chosen


def test_two_runs_at_once_end_as_each_alone(finished, tmp_path) -> None:
    Run(tmp_path / "other", *OPTIONS[1], project=finished.folder).finish()
    run_beside(tmp_path / "both", project=finished.folder)
    found, other = contents(tmp_path / "both" / "data"), contents(tmp_path / "other" / "data")
    assert differing(found, of_the_same_folders(contents(finished.data), found), other) == []
    of_other = artifacts(tmp_path / "other")[0]
    logged = [differing(of_run, of_other) for of_run in artifacts(tmp_path / "both")]
    assert [] in logged and len(logged) == 2
    ours = next(of_run for of_run in artifacts(tmp_path / "both") if differing(of_run, of_other))
    assert ours in artifacts(finished.folder)
