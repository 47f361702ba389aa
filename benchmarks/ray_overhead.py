"""What Ray costs: features of 200 drawings by tiny, in this process and by two workers on this machine.

    python benchmarks/ray_overhead.py      # needs two idle cores and the extra [ray]

This process may use both cores, each worker one. The first time on Ray its workers start and load the model; the second
time they are there.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from partcraft_kedro.compute import Engine
from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.options import ComputeOptions, FeaturesOptions
from partcraft_kedro.pipelines.features.work import extraction
from partcraft_kedro.stages import StageRef

MACHINE: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 2**27}


def seconds(records: pd.DataFrame, folder: Path, engine: Engine) -> float:
    begun = time.perf_counter()
    extraction(StageRef(folder, ""), records=records, features=FeaturesOptions(shard_size=16), engine=engine)
    return time.perf_counter() - begun


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update({"RAY_worker_niceness": "0"})
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        records = draw_dataset(
            "creatures", root / "drawn", root, classes=20, pictures_per_class=10, test_fraction=0.0, seed=0
        )
        here = Engine(ComputeOptions(), "cpu", root)
        found = {
            "here, with libraries to load": seconds(records, root / "a", here),
            "here, with the model to load": seconds(records, root / "b", here),
        }
        cluster = Cluster(initialize_head=True, head_node_args={**MACHINE, "include_dashboard": False})
        cluster.add_node(**MACHINE)
        with Engine(ComputeOptions(engine="ray", address=cluster.address), "cpu", root) as engine:
            found["on Ray, with the workers to start"] = seconds(records, root / "c", engine)
            found["on Ray, with the model to load"] = seconds(records, root / "d", engine)
        ray.shutdown()
        cluster.shutdown()
    for what, took in found.items():
        print(f"{what:<36}{took:7.2f} s{len(records) / took:9.1f} pictures/s")


if __name__ == "__main__":
    main()
