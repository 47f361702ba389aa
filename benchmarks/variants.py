"""Whether a variant is of its part alone: creatures whose parts' looks are drawn independently of each other.

    python benchmarks/variants.py [--pictures 600] [--variants 16] [--seeds 3]

Draws creatures, finds their parts as the demo does, and clusters each part's mean feature after several preparations.
Prints for each the adjusted mutual information (AMI) of a part's codes with its own look; with the looks of the other
parts and the place, one by one, which are independent of it, so that anything but 0 is leakage; and with which way the
animal looks. Means over parts and seeds, and in brackets the standard deviation between seeds.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_mutual_info_score

from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.features.crops import crop_changes, random_box
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.parts.agreement import match_labels, overlap, patch_labels
from partcraft_kedro.parts.discovery import fit_part_predictor, whitening_of
from partcraft_kedro.parts.kmeans import cosine_kmeans
from partcraft_kedro.parts.predictor import part_means
from partcraft_kedro.randomness import numpy_generator

_BATCH = 32
_COLUMNS = ("own look", "other looks", "most of others", "place")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="creatures", choices=list(WORLDS))
    parser.add_argument("--model", default="tiny", help="of features (default: tiny)")
    parser.add_argument("--layer", type=int, help="its block (default: the last)")
    parser.add_argument("--mirrored", action="store_true", help="average with features of the mirror image")
    parser.add_argument("--discovery", default="plain", help="of parts (default: plain, as in the demo)")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--variants", type=int, default=16, help="K (default: 16)")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    extractor = FeatureExtractor(arguments.model, layer=arguments.layer, mirrored=arguments.mirrored)
    found = [measure(extractor, arguments, seed) for seed in range(arguments.seeds)]
    print(f"{'':36}" + "".join(f"{column:>16}" for column in _COLUMNS))
    for name in found[0]:
        columns = np.array([of_seed[name] for of_seed in found])
        told = [f"{mean:.3f} ({spread:.3f})" for mean, spread in zip(columns.mean(0), columns.std(0), strict=True)]
        print(f"{name:36}" + "".join(f"{column:>16}" for column in told))


def measure(extractor: FeatureExtractor, arguments: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    """Of each preparation, the four columns."""
    world, count = WORLDS[arguments.world], arguments.pictures
    rng = numpy_generator(seed, "independent parts")
    subjects = [world.random_subject(rng) for _ in range(count)]
    drawings = [world.draw(subject, world.random_pose(rng)) for subject in subjects]
    pictures = np.stack([drawing.picture for drawing in drawings])
    batches = np.array_split(pictures, -(-count // _BATCH))
    features = torch.cat([extractor(batch) for batch in batches])
    options: dict[str, Any] = {"n_init": 4, "max_iter": 50, "seed": seed}
    settings: dict[str, Any] = {
        "discovery": arguments.discovery,
        "merge": False,
        "min_patches": 2,
        "min_pictures": 1,
        "extractor": {},
    }
    predictor = fit_part_predictor([features], parts=len(world.looks), variants=1, **settings, **options)
    found = predictor.label_maps(features)
    true = patch_labels(np.stack([drawing.mask for drawing in drawings]), extractor.grid)
    matching = match_labels(overlap(found, true, len(world.labels), len(world.labels)))
    looks = {
        label: np.array([subject[world.labels[true_label]] for subject in subjects])
        for label, true_label in matching.items()
    }
    changed = [
        crop_changes(extractor, batch, [random_box(pictures.shape[1], rng) for _ in batch]).flatten(0, 1)
        for batch in batches[: 256 // _BATCH]
    ]
    changes = torch.cat(changed)
    whitening = whitening_of(changes.T @ changes / len(changes))
    scores = {}
    for name, points, present in prepared(features, found, len(world.labels), whitening):
        codes = {}
        for m in range(1, len(world.labels)):
            of_part = F.normalize(points[present[:, m], m], dim=-1)
            centroids = cosine_kmeans(partial(list, [of_part]), arguments.variants, purpose=f"variants {m}", **options)
            codes[m] = (of_part @ centroids.T).argmax(-1).numpy()
        told = {
            (m, label): adjusted_mutual_info_score(of_label[present[:, m].numpy()], codes[m])
            for m in codes
            for label, of_label in looks.items()
        }
        own = [told[m, m] for m in codes]
        others = [value for (m, label), value in told.items() if label not in (0, m)]
        place = [value for (_, label), value in told.items() if label == 0]
        scores[name] = [np.mean(own), np.mean(others), np.max(others), np.mean(place)]
    return scores


def prepared(
    features: torch.Tensor, labels: np.ndarray, count: int, whitening: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Name of a preparation, what tier 3 would compare, (n, label, width), and which parts show, (n, label)."""
    means, present = part_means(features, labels, count, 2)
    yield "as it is", means, present
    unit = F.normalize(means, dim=-1)
    shown = present[..., None].float()
    over_pictures = (unit * shown).sum(0) / shown.sum(0).clamp(min=1)
    of_picture = (unit * shown)[:, 1:].sum(1, keepdim=True) / shown[:, 1:].sum(1, keepdim=True).clamp(min=1)
    yield "less the mean over pictures", unit - over_pictures, present
    yield "less half the mean of its parts", unit - of_picture / 2, present
    yield "less the mean of its parts", unit - of_picture, present
    yield "half-whitened, 64 components", _whitened((unit - over_pictures), shown, 64, 0.25), present
    yield "whitened, 64 components", _whitened((unit - over_pictures), shown, 64, 0.5), present
    yield "whitened by crops", unit @ whitening, present
    yield "whitened by crops, less the mean", (unit - over_pictures) @ whitening, present
    yield "less what other parts predict", _unpredicted((unit - over_pictures) * shown), present
    yield "of patches inside the part", _inner_means(features, labels, means), present


def _whitened(points: torch.Tensor, shown: torch.Tensor, components: int, power: float) -> torch.Tensor:
    """Each part's principal components, divided by their variances to this power."""
    out = torch.zeros(*points.shape[:2], components)
    for m in range(points.shape[1]):
        variances, directions = torch.linalg.eigh((points[:, m] * shown[:, m]).T @ points[:, m] / shown[:, m].sum())
        out[:, m] = points[:, m] @ directions[:, -components:] * variances[-components:].clamp(min=1e-9) ** -power
    return out


def _unpredicted(points: torch.Tensor) -> torch.Tensor:
    """What a ridge regression on a picture's other parts leaves of each; fitted on the other half of the pictures."""
    out = torch.zeros_like(points)
    for m in range(1, points.shape[1]):
        others = torch.cat([points[:, :m], points[:, m + 1 :]], 1).flatten(1)
        for half in (0, 1):
            x, y = others[1 - half :: 2], points[1 - half :: 2, m]
            ridge = x.square().sum(1).mean() * torch.eye(x.shape[1])
            line = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
            out[half::2, m] = points[half::2, m] - others[half::2] @ line
    return out


def _inner_means(features: torch.Tensor, labels: np.ndarray, means: torch.Tensor) -> torch.Tensor:
    """Means of those patches whose four neighbours are of the same part; of parts that have none, as before."""
    count = means.shape[1]
    wide = np.pad(labels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    neighbours = wide[:, :-2, 1:-1], wide[:, 2:, 1:-1], wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]
    same = np.logical_and.reduce([labels == neighbour for neighbour in neighbours])
    inner, shown = part_means(features, np.where(same, labels, count), count + 1, 1)
    return torch.where(shown[:, :count, None], inner[:, :count], means)


if __name__ == "__main__":
    main()
