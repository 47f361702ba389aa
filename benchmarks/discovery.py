"""Part discovery at the size of Stanford Dogs: time and memory, beside faiss's k-means on the same points.

    pip install --constraint constraints.txt --editable '.[bench]'; python benchmarks/discovery.py --pictures 12000

Writes synthetic features (256 patches of 768 numbers a picture, around random centres, a foreground blob in each) to
a temporary folder, 4.4 GiB for 12,000 pictures, then runs each job in a process of its own: one pass over the data
(read, convert, normalise), the three tiers, and faiss's spherical k-means over all patches and then over those of the
foreground, which it needs in memory. What crops change, the extraction of 512 pictures more, is not counted: with an
identity in its place `whitened` does the same work. Prints seconds and peak memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PARTS, VARIANTS, STARTS, ITERATIONS = 7, 256, 4, 50
WIDTH, GRID, SHARD = 768, 16, 128


def write_features(folder: Path, pictures: int) -> None:
    """Every picture: a background centre, and a square of foreground whose rows go through the parts' centres."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    scene, parts = torch.randn(2, WIDTH, generator=generator), torch.randn(PARTS, WIDTH, generator=generator)
    for start in range(0, pictures, SHARD):
        count = min(SHARD, pictures - start)
        features = torch.randn(count, GRID, GRID, WIDTH, generator=generator) + 2 * scene[0]
        species = torch.randn(count, 1, 1, WIDTH, generator=generator)
        inside = features[:, 4:12, 4:12]
        inside += 2 * (scene[1] - scene[0]) + species
        inside += 2 * parts[torch.arange(8) % PARTS][None, :, None]
        save_file({"features": features.flatten(1, 2).half()}, folder / f"features-{start:07d}.safetensors")


def one_pass(folder: Path) -> None:
    import torch.nn.functional as F

    from partcraft_kedro.features.shards import FeatureShards

    for chunk in FeatureShards(folder):
        F.normalize(chunk, dim=-1)


def three_tiers(folder: Path, discovery: str) -> None:
    import torch

    from partcraft_kedro.features.shards import FeatureShards
    from partcraft_kedro.parts.discovery import fit_part_predictor

    predictor = fit_part_predictor(
        FeatureShards(folder), discovery=discovery, parts=PARTS, variants=VARIANTS, n_init=STARTS,
        max_iter=ITERATIONS, merge=False, min_patches=2, min_pictures=1, seed=0, extractor={},
        changes=torch.eye(WIDTH) if discovery == "whitened" else None,
    )  # fmt: skip
    print("variants", [len(variants) for variants in predictor.variants], end=" ")


def faiss_tiers(folder: Path) -> None:
    """Tiers 1 and 2 on all points, without faiss's own subsampling; tier 1 takes them in float32, all at once."""
    import faiss

    from partcraft_kedro.features.shards import FeatureShards

    chunks = FeatureShards(folder)
    points = np.empty((sum(len(chunk) for chunk in chunks) * GRID**2, WIDTH), np.float32)
    start = 0
    for chunk in chunks:
        of_chunk = chunk.flatten(0, 1).numpy()
        points[start : start + len(of_chunk)] = of_chunk
        start += len(of_chunk)
    options = {"niter": ITERATIONS, "nredo": 1, "spherical": True, "seed": 0, "max_points_per_centroid": len(points)}
    faiss.normalize_L2(points)
    scene = faiss.Kmeans(WIDTH, 2, **options)
    scene.train(points)
    labels = scene.index.search(points, 1)[1][:, 0]
    foreground = points[labels == np.bincount(labels).argmin()]
    del points
    parts = faiss.Kmeans(WIDTH, PARTS, **options)
    parts.train(foreground)


JOBS = {
    "one pass": one_pass,
    "three tiers, plain": lambda folder: three_tiers(folder, "plain"),
    "three tiers, centred": lambda folder: three_tiers(folder, "centred"),
    "three tiers, trimmed": lambda folder: three_tiers(folder, "trimmed"),
    "three tiers, whitened": lambda folder: three_tiers(folder, "whitened"),
    "faiss, tiers 1 and 2": faiss_tiers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=12_000, help="how many (default: 12000, Stanford Dogs)")
    parser.add_argument("--job", nargs=2, metavar=("NAME", "FOLDER"), help="one job alone, in this process")
    arguments = parser.parse_args()
    if arguments.job:
        name, folder = arguments.job
        begin = time.perf_counter()
        JOBS[name](Path(folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {time.perf_counter() - begin:.0f} s, peak {peak:.2f} GiB", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder), arguments.pictures)
        for name in JOBS:
            subprocess.run([sys.executable, __file__, "--job", name, folder], check=False)


if __name__ == "__main__":
    main()
