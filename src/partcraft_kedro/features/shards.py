"""Features on disk: float16 shards, written in bounded memory, resumed at the first missing one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.images.records import load_pictures
from partcraft_kedro.stages import write_file


def write_shards(
    extractor: FeatureExtractor, paths: Sequence[Path], folder: Path, *, batch_size: int, shard_size: int
) -> None:
    """Extract features of `paths`, `shard_size` pictures to a file; finished files are kept."""
    for start in tqdm(range(0, len(paths), shard_size), desc="extract features", unit="shard"):
        shard = folder / f"features-{start:07d}.safetensors"
        if shard.exists():
            continue
        of_shard = paths[start : start + shard_size]
        features = [
            extractor(load_pictures(of_shard[first : first + batch_size], extractor.size)).half()
            for first in range(0, len(of_shard), batch_size)
        ]
        write_file(shard, lambda partial, f=features: save_file({"features": torch.cat(f)}, partial))


class FeatureShards:
    """Reads a folder of shards in order: each iteration yields (pictures, patches, width) float32.

    chosen: which pictures to yield, (n,) bool; all if None.
    """

    def __init__(self, folder: Path, chosen: np.ndarray | None = None):
        self._shards = sorted(folder.glob("features-*.safetensors"))
        self._chosen = chosen

    def __iter__(self) -> Iterator[torch.Tensor]:
        start = 0
        for shard in self._shards:
            features = load_file(shard)["features"].float()
            stop = start + len(features)
            yield features if self._chosen is None else features[torch.tensor(self._chosen[start:stop])]
            start = stop
