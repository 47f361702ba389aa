"""What a picture takes of memory in what the stages do with whole tables, without the pictures.

    python benchmarks/memory_by_picture.py             # at 50,000 and at 200,000 pictures, a minute of one core
    python benchmarks/memory_by_picture.py 1000000     # at a quarter of so many, and at so many

Each piece of work has a process of its own. Its peak beyond what was in memory before, at two sizes, gives bytes a
picture, and what ten million would take.
"""

import multiprocessing
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

PARTS, GRID = 6, 16  # labels, the background included; patches of a picture, both ways
_STATUS = Path("/proc/self/status")


def records_of(count: int) -> pd.DataFrame:
    """As photographs have them, checked."""
    rng = np.random.default_rng(0)
    digests = [rng.bytes(32).hex() for _ in range(min(count, 10_000))]
    return pd.DataFrame(
        {
            "id": [f"class_{i % 200:03d}/picture_{i:08d}" for i in range(count)],
            "path": [f"01_raw/photographs/class_{i % 200:03d}/picture_{i:08d}.jpg" for i in range(count)],
            "class_name": [f"class_{i % 200:03d}" for i in range(count)],
            "split": ["test" if i % 5 == 0 else "train" for i in range(count)],
            "sha256": [f"{i:08x}{digests[i % len(digests)][8:]}" for i in range(count)],
            "width": 640,
            "height": 480,
            "duplicate_of": pd.Series([None] * count, dtype=object),
        }
    )


def codes_of(records: pd.DataFrame) -> pd.DataFrame:
    codes = np.random.default_rng(0).integers(0, 256, (len(records), PARTS))
    return pd.DataFrame({"id": records["id"], "code": list(codes), "cosine": list(codes.astype(np.float32))})


def fingerprint(folder: Path, count: int) -> Callable[[], object]:
    from partcraft_kedro.files import fingerprint_of

    records = records_of(count)
    return lambda: fingerprint_of(records)


def hashes(folder: Path, count: int) -> Callable[[], object]:
    from partcraft_kedro.images.records import hash_pictures

    records = records_of(count)
    return lambda: hash_pictures(records, folder)  # none is there: what is measured is the waiting for them


def codes_in_memory(folder: Path, count: int) -> Callable[[], object]:
    records = records_of(count)
    return lambda: codes_of(records)


def codes_written_and_read(folder: Path, count: int) -> Callable[[], object]:
    codes = codes_of(records_of(count))

    def work() -> object:
        codes.to_parquet(folder / "codes.parquet")
        return pd.read_parquet(folder / "codes.parquet")

    return work


def prompts(folder: Path, count: int) -> Callable[[], object]:
    from partcraft_kedro.pipelines.prompts.nodes import build_prompts

    records = records_of(count)
    codes = codes_of(records)
    return lambda: build_prompts(records, codes)


def fingerprint_of_prompts(folder: Path, count: int) -> Callable[[], object]:
    from partcraft_kedro.files import fingerprint_of
    from partcraft_kedro.pipelines.prompts.nodes import build_prompts

    records = records_of(count)
    table = build_prompts(records, codes_of(records))
    return lambda: fingerprint_of(table)


def label_maps(folder: Path, count: int) -> Callable[[], object]:
    from partcraft_kedro.parts.label_maps import load_label_maps, save_label_maps

    shards = [np.zeros((128, GRID, GRID), np.uint8) for _ in range(count // 128)]

    def work() -> object:
        save_label_maps(np.concatenate(shards), folder / "masks")
        return load_label_maps(folder / "masks")

    return work


def floor(folder: Path, count: int) -> Callable[[], object]:
    from partcraft_kedro.evaluation.scores import random_others

    records = records_of(count).set_index("id")
    plan = pd.DataFrame({"id": ["one"], "sources": [[records.index[0]]]})
    return lambda: random_others(plan, records, 0)


WORK = {
    "fingerprint of the records": fingerprint,
    "hashes of the pictures' files": hashes,
    "codes and cosines in memory": codes_in_memory,
    "codes written and read": codes_written_and_read,
    "prompts": prompts,
    "fingerprint of the prompts": fingerprint_of_prompts,
    "label maps written and read": label_maps,
    "another picture for the floor": floor,
}


def _of_status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    assert found
    return int(found[1]) * 1024


def peak(name: str, count: int) -> int:
    """Bytes at the peak of a piece of work beyond what was in memory before."""
    with tempfile.TemporaryDirectory() as folder:
        work = WORK[name](Path(folder), count)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _of_status("VmRSS")
        kept = work()
        after = _of_status("VmHWM") - before
        del kept
        return after


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    sizes = most // 4, most
    print(f"| what | bytes a picture | at 10 million, GiB |\n|---|---|---|  <!-- {sizes[0]:,} and {sizes[1]:,} -->")
    context = multiprocessing.get_context("spawn")
    for name in WORK:
        peaks = []
        for count in sizes:
            with context.Pool(1) as pool:
                peaks.append(pool.apply(peak, (name, count)))
        slope = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
        print(f"| {name} | {slope:,.0f} | {(peaks[1] + slope * (10**7 - most)) / 2**30:.1f} |", flush=True)


if __name__ == "__main__":
    main()
