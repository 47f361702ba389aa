"""How far generated pictures are from real ones as sets: Fréchet and kernel distance, density and coverage.

Each is measured on features of some network, by an `Embedder`, and only where there are pictures enough for it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from partcraft_kedro.devices import resolve_device
from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.evaluation.inception import Inception
from partcraft_kedro.files import read_file, write_file
from partcraft_kedro.images.decoding import load_ahead
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.randomness import numpy_generator

NEIGHBOURS = 5  # of density and coverage, as in Naeem et al. (2020)
# The kernel distance is unbiased from two pictures on, but two samples of one distribution, n pictures each, differ
# by 2.8 / n of the centred kernel's standard deviation: 6% at 50.
LEAST_FOR_KERNEL = 50
SHARD = 1024  # pictures whose features are a file
_MOST_REAL = 50_000
_BATCH = 32
_ROWS = 512


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to features (n, d) (Heusel et al. 2017), by torchmetrics."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Features(torch.nn.Identity):
        num_features = real.shape[1]

    metric = FrechetInceptionDistance(feature=Features())
    metric.update(torch.from_numpy(real).float(), real=True)
    metric.update(torch.from_numpy(generated).float(), real=False)
    return float(metric.compute())


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Unbiased squared MMD between features (n, d) under the kernel (x·y/d + 1)³ (Bińkowski et al. 2018).

    Over all features at once: torchmetrics compares random subsets of equal size, drawn from a global state.
    """
    x, y = real.astype(np.float64), generated.astype(np.float64)

    def kernel(products: np.ndarray) -> np.ndarray:
        return (products / x.shape[1] + 1) ** 3

    def sum_of_pairs(a: np.ndarray, b: np.ndarray) -> float:
        return sum(kernel(rows @ b.T).sum() for rows in _blocks(a))

    def mean_of_pairs(a: np.ndarray) -> float:  # of different pictures
        of_itself = kernel(np.square(a).sum(1)).sum()
        return (sum_of_pairs(a, a) - of_itself) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * sum_of_pairs(x, y) / (len(x) * len(y)))


def density_and_coverage(real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Density and coverage of features (n, d) (Naeem et al. 2020, arXiv:2002.09797).

    Each real picture has a ball that reaches to its `neighbours`-th nearest real one, which is just outside.
    Density: how many balls a generated picture is in, over `neighbours`: 1 for a perfect generator, and more where it
    keeps to what is common. Coverage: the share of balls with a generated picture in them.
    Needs more than `neighbours` real pictures and one generated.
    """
    # Exact, unlike sklearn's distances: a picture on a ball's rim must not fall inside by rounding.
    from scipy.spatial.distance import cdist

    x, y = real.astype(np.float64), generated.astype(np.float64)
    in_balls, covered = 0, 0
    for rows in _blocks(x):
        radii = np.partition(cdist(rows, x), neighbours, axis=1)[:, neighbours]  # at 0 is the picture itself
        inside = cdist(rows, y) < radii[:, None]
        in_balls += int(inside.sum())
        covered += int(inside.any(1).sum())
    return in_balls / (neighbours * len(y)), covered / len(x)


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    """Rows that are compared with all others at once: a matrix of all pairs would fill the memory."""
    for start in range(0, len(features), _ROWS):
        yield features[start : start + _ROWS]


@dataclass(frozen=True)
class Embedder:
    """A network that turns pictures (n, 3, h, w), float in 0..1, into features (n, width), float32 on the CPU.

    name: what the features are, for reports.
    """

    name: str
    width: int
    embed: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.embed(pictures)


def inception_embedder(path: str | Path, device: str = "auto") -> Embedder:
    """FID's own features. path: of the weights, `evaluate.inception`; UserError if they are not there."""
    device = resolve_device(device)
    network = Inception.load(path).to(device)

    @torch.inference_mode()
    def embed(pictures: torch.Tensor) -> torch.Tensor:
        return network(pictures.to(device)).cpu()

    return Embedder(f"Inception-v3 of FID, antialiased, {network.width} numbers", network.width, embed)


def dinov2_embedder(model: str, device: str = "auto") -> Embedder:
    """The mean over patches of a DINOv2's features. model: as `FeatureExtractor` takes it."""
    from partcraft_kedro.features.extractor import FeatureExtractor

    extractor = FeatureExtractor(model, device=device)
    name = f"{model}, mean over patches, {extractor.width} numbers"
    return Embedder(name, extractor.width, lambda pictures: extractor(pictures).mean(1))


def judge_embedder(judge: Judge) -> Embedder:
    """The features of the creatures' judge."""
    width = judge.head.in_channels
    return Embedder(f"judge, {width} numbers", width, judge.embed)


def embed_pictures(embedder: Embedder, paths: Sequence[Path], size: int) -> np.ndarray:
    """Pictures on disk, as squares of `size` pixels → (n, width) float32; decoded a batch ahead."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    decoded = tqdm(load_ahead(batches, size), total=len(batches), desc="embed pictures", unit="batch")
    return torch.cat([torch.empty(0, embedder.width), *(embedder(to_unit(batch)) for batch in decoded)]).numpy()


def reference_of(paths: pd.Series, seed: int) -> tuple[pd.Series, str]:
    """The real pictures to compare with, and what they are in words: all, or a random choice of 50,000, as is usual for
    FID. Every pair of pictures is compared: ten million would take years."""
    if len(paths) <= _MOST_REAL:
        return paths, "all real pictures"
    chosen = numpy_generator(seed, "reference").permutation(len(paths))[:_MOST_REAL]
    return paths.iloc[np.sort(chosen)], f"{_MOST_REAL:,} of {len(paths):,} real pictures, chosen at random"


def write_embedded(embedder: Embedder, paths: Sequence[Path], size: int, folder: Path, first: int = 0) -> None:
    """`embed_pictures` into `folder`, in shards; those that are there are kept.

    first: the number of the first picture, if these are some of all, a multiple of `SHARD`.
    """
    for start in range(0, len(paths), SHARD):
        shard = folder / f"embedded-{first + start:07d}.safetensors"
        if not shard.exists():
            features = {"features": embed_pictures(embedder, paths[start : start + SHARD], size)}
            write_file(shard, partial(save_file, features, metadata={"embedder": embedder.name}))


def load_embedded(folder: Path) -> tuple[np.ndarray, str]:
    """What `write_embedded` wrote, (n, width) float32, and the embedder's name."""
    shards = sorted(folder.glob("embedded-*.safetensors"))
    with safe_open(shards[0], "np") as shard:
        name = shard.metadata()["embedder"]
    return np.concatenate([read_file(shard, load_file)["features"] for shard in shards]), name


def compare(real: np.ndarray, generated: np.ndarray, *, features: str, reference: str) -> dict[str, dict]:
    """All four measures between features (n, d): frechet, kernel, density, coverage.

    features: what they are, an embedder's name; reference: which split of the real pictures this is.
    Each is {value, n, n_real, features, reference, note}; with too few pictures for it its value is None, and the note
    says what it needs.
    """
    n_real, n, width = len(real), len(generated), real.shape[1]
    has = f"has {n_real} real and {n} generated"

    def result(value: float | None, note: str | None = None) -> dict:
        shared = {"n": n, "n_real": n_real, "features": features, "reference": reference}
        return {"value": value, **shared, "note": note}

    if min(n_real, n) > width:
        frechet = result(frechet_distance(real, generated))
    else:  # a covariance would be singular, and the distance measure the number of pictures more than the pictures
        frechet = result(None, f"needs more than {width} pictures on each side for its {width} features, {has}")

    if min(n_real, n) >= LEAST_FOR_KERNEL:
        kernel = result(kernel_distance(real, generated))
    else:
        kernel = result(None, f"needs {LEAST_FOR_KERNEL} pictures on each side to rise above its noise, {has}")

    if n_real > NEIGHBOURS and n > 0:
        density, coverage = map(result, density_and_coverage(real, generated))
        if n < n_real:
            best = expected_coverage(n_real, n)
            coverage["note"] = f"a perfect generator would reach {best:.2f} with so few pictures, {has}"
    else:
        note = f"needs more than {NEIGHBOURS} real pictures and a generated one, {has}"
        density, coverage = result(None, note), result(None, note)
    return {"frechet": frechet, "kernel": kernel, "density": density, "coverage": coverage}


def expected_coverage(n_real: int, n: int, neighbours: int = NEIGHBOURS) -> float:
    """The coverage that n pictures of the real ones' own distribution reach on average (Naeem et al. 2020).

    A ball stays empty if the `neighbours` nearest among the other real and the generated pictures are all real.
    """
    return 1 - comb(n_real - 1, neighbours) / comb(n_real - 1 + n, neighbours)
