"""What a random crop changes of features: those of a crop, less those of the whole picture at the same places.

What a place shows is the same in both. So these differences tell which directions of feature space to make light of.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from partcraft_kedro.features.extractor import FeatureExtractor, resized
from partcraft_kedro.features.shards import finite
from partcraft_kedro.files import read_file, write_file
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.randomness import numpy_generator

_SIDES = (0.5, 0.9)  # of a crop, as shares of the picture's


def write_changes(
    extractor: FeatureExtractor, paths: Sequence[Path], folder: Path, *, shard_size: int, seed: int, first: int = 0
) -> None:
    """The sum of all changes' outer products, and their number, `shard_size` pictures to a file and a forward pass;
    finished files are kept.

    first: the number of the first picture, as of `write_shards`: the n-th has the same crop, whoever takes it.
    Raises UserError naming a picture that cannot be decoded.
    """
    side = 2 * extractor.size  # so that the smallest crop has pixels enough
    for start in tqdm(range(0, len(paths), shard_size), desc="compare crops", unit="shard"):
        shard = folder / f"changes-{first + start:07d}.safetensors"
        if shard.exists():
            continue
        batch = paths[start : start + shard_size]
        boxes = [random_box(side, numpy_generator(seed, "crop", first + start + i)) for i in range(len(batch))]
        changes = finite(crop_changes(extractor, load_pictures(batch, side), boxes), batch, extractor.model)
        changes = changes.flatten(0, 1)
        summed = {"products": changes.T @ changes, "count": torch.tensor(len(changes))}
        write_file(shard, partial(save_file, summed))


def read_changes(folder: Path) -> torch.Tensor:
    """The changes' second moment, (width, width) float32, of all files."""
    shards = [read_file(path, load_file) for path in sorted(folder.glob("changes-*.safetensors"))]
    products, counts = (torch.stack([shard[name] for shard in shards]) for name in ("products", "count"))
    return products.sum(0) / counts.sum()


def random_box(pixels: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """A square within a square picture: left, top and side in pixels."""
    side = round(pixels * rng.uniform(*_SIDES))
    left, top = rng.integers(0, pixels - side, 2, endpoint=True)
    return int(left), int(top), side


def crop_changes(
    extractor: FeatureExtractor, pictures: np.ndarray, boxes: Sequence[tuple[int, int, int]]
) -> torch.Tensor:
    """What a crop changes at the middle of each of its patches, between features of unit length: (n, patches, width).

    pictures: (n, h, h, 3) uint8; boxes: left, top and side of each one's crop, in pixels. The whole picture's features
    are interpolated between the middles of its own patches; beyond the outermost they stay as they are.
    """
    whole = F.normalize(extractor(pictures), dim=-1)
    crops = [
        resized(to_unit(picture[None, top : top + side, left : left + side]), extractor.size)
        for picture, (left, top, side) in zip(pictures, boxes, strict=True)
    ]
    cropped = F.normalize(extractor(torch.cat(crops)), dim=-1)
    middles = (torch.arange(extractor.grid) + 0.5) / extractor.grid
    left, top, side = torch.tensor(boxes).T[..., None] / pictures.shape[1]  # (n, 1) each
    x, y = torch.broadcast_tensors((left + side * middles)[:, None, :], (top + side * middles)[:, :, None])
    planes = whole.transpose(1, 2).unflatten(2, (extractor.grid, extractor.grid))
    there = F.grid_sample(planes, 2 * torch.stack([x, y], -1) - 1, padding_mode="border", align_corners=False)
    return cropped - there.flatten(2).transpose(1, 2)
