"""The benchmark of GPUs, on tiny and a CPU."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks/gpu.py"


def test_it_runs_through_and_copies_are_less_than_a_quarter(tmp_path: Path) -> None:
    few = ["--device", "cpu", "--batches", "1", "--rounds", "1", "--sampling-steps", "1"]
    subprocess.run([sys.executable, SCRIPT, *few, "--output", tmp_path], check=True)
    tables = json.loads((tmp_path / "benchmarks-gpu.json").read_text())
    before, plain, now = tables["counted, of a step"]
    assert now["copies in a step"] < plain["copies in a step"]
    assert 0 < now["copies in a step"] < before["copies in a step"] / 4
    assert 0 < now["GiB a picture"] < plain["GiB a picture"] < before["GiB a picture"]
    assert [row["pictures a step"] for row in tables["steps"]] == [1]
    assert before["products in a step"] > now["products in a step"]
    [counted] = tables["counted memory, GiB"]
    assert counted["with checkpointing"] <= counted["a step"]
    assert {row["way"] for row in tables["techniques"]} > {"plain diffusers practice", "bfloat16"}
    assert {name for name, rows in tables.items() if rows} == set(tables)
    text = (tmp_path / "benchmarks-gpu.md").read_text()
    assert all(f"## {name[0].upper()}{name[1:]}" in text for name in tables if name != "about")
