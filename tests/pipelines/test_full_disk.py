"""A disk that fills while a run is at work; benchmarks/full_disk.py fills it in every node."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from full_disk import Disk, data_on, fill_in_turn, mounted
from runs import contents, differing, of_the_same_folders

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may mount a small disk"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        with mounted(tmp_path / "disk") as disk:
            yield disk
    except OSError as error:  # root of a container
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("on", "nodes", "ended"),
    [
        ("data", ["cache_latents", "train_adapter", "draw_scores"], 3),
        ("mlflow", ["train_adapter"], 1),
    ],
)
def test_a_run_goes_on_when_there_is_space_again(finished, disk, tmp_path, on, nodes, ended) -> None:
    told, wrong = fill_in_turn(disk, tmp_path, on, nodes, [0], finished.folder)
    assert wrong == [] and told.total() == ended
    found = contents(data_on(disk, tmp_path, on))
    assert differing(found, of_the_same_folders(contents(finished.data), found)) == []
