"""Features on disk: float16 shards, written in bounded memory, resumed at the first missing one."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.files import read_file, write_file
from partcraft_kedro.images.decoding import load_ahead


def write_shards(
    extractor: FeatureExtractor,
    paths: Sequence[Path],
    folder: Path,
    *,
    batch_size: int,
    shard_size: int,
    first: int = 0,
) -> None:
    """Extract features of `paths`, `shard_size` pictures to a file; finished files are kept.

    Threads decode the next batch while this one computes. first: the number of the first picture, if these are some of
    all, a multiple of `shard_size`.
    Raises UserError naming a picture that cannot be decoded.
    """
    starts = range(0, len(paths), shard_size)
    missing = {start: folder / f"features-{first + start:07d}.safetensors" for start in starts}
    missing = {start: shard for start, shard in missing.items() if not shard.exists()}
    batches = {
        start: [
            paths[begin : min(begin + batch_size, start + shard_size)]
            for begin in range(start, min(start + shard_size, len(paths)), batch_size)
        ]
        for start in missing
    }
    every = [batch for of_shard in batches.values() for batch in of_shard]
    decoded = load_ahead(every, extractor.size)
    with tqdm(total=sum(map(len, every)), desc="extract features", unit="picture") as progress:
        for start, shard in missing.items():
            features = []
            for batch in batches[start]:
                features.append(finite(extractor(next(decoded)).half(), batch, extractor.model))
                progress.update(len(batch))
            write_file(shard, partial(save_file, {"features": torch.cat(features)}))


def finite(features: torch.Tensor, paths: Sequence[Path], model: str) -> torch.Tensor:
    """Features (n, patches, width) as they are. Raises UserError if any is not a finite number."""
    whole = features.isfinite().flatten(1).all(1)
    if not whole.all():
        first = paths[int(whole.int().argmin())]
        raise UserError(
            f"features.model={model!r} gives features of {first} that are not all finite numbers: give another model "
            "or, on a GPU, try base.device=cpu."
        )
    return features


def shape_of(folder: Path) -> tuple[int, int]:
    """Patches of a picture and width of the features that a folder of shards holds."""
    with safe_open(next(folder.glob("features-*.safetensors")), "pt") as shard:
        _, patches, width = shard.get_slice("features").get_shape()
    return patches, width


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
            features = read_file(shard, load_file)["features"].float()
            stop = start + len(features)
            yield features if self._chosen is None else features[torch.tensor(self._chosen[start:stop])]
            start = stop
