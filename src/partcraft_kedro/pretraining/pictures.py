"""The pictures that tiny learns from, and what it is told about them."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from partcraft_kedro.images import creatures
from partcraft_kedro.randomness import numpy_generator

GRID = 16  # patches each way, 8 pixels each


@dataclass(frozen=True)
class PretrainingPictures:
    """Drawn creatures, memory-mapped.

    pictures: (n, 128, 128, 3) uint8; masks: (n, 128, 128) uint8 in LABELS order;
    attributes: (n, 6, 2) uint8, one (colour, pattern) per label; (kind, 0) for the background.
    """

    pictures: np.ndarray
    masks: np.ndarray
    attributes: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)


def attribute_indices(creature: creatures.Creature) -> np.ndarray:
    """A creature's attributes as (6, 2) uint8: (colour, pattern) per part, (kind, 0) for the background."""
    rows = [(list(creatures.BACKGROUNDS).index(creature.background), 0)]
    for part in creatures.PARTS:
        look = getattr(creature, part)
        rows.append((list(creatures.COLOURS).index(look.colour), creatures.PATTERNS.index(look.pattern)))
    return np.array(rows, np.uint8)


def draw_pretraining_pictures(folder: Path, count: int, seed: int, species: int) -> PretrainingPictures:
    """Draw `count` creatures that share no held-out look pair with the default dataset's species."""
    paths = [folder / f"{name}.npy" for name in ("pictures", "masks", "attributes")]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        pairs = creatures.held_out_pairs(creatures.make_species(species, seed=0))
        size = (creatures.SIZE, creatures.SIZE)
        shapes = [(count, *size, 3), (count, *size), (count, len(creatures.LABELS), 2)]
        partial_paths = [path.with_suffix(".partial.npy") for path in paths]
        arrays = [
            np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            for path, shape in zip(partial_paths, shapes, strict=True)
        ]
        with ProcessPoolExecutor() as pool:
            drawn = pool.map(partial(_draw_one, seed=seed, pairs=pairs), range(count), chunksize=64)
            for index, one in enumerate(tqdm(drawn, total=count, desc="draw pictures")):
                for array, value in zip(arrays, one, strict=True):
                    array[index] = value
        for array, partial_path, path in zip(arrays, partial_paths, paths, strict=True):
            array.flush()
            partial_path.rename(path)
    return PretrainingPictures(*(np.load(path, mmap_mode="r") for path in paths))


def _draw_one(index: int, seed: int, pairs: set) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = numpy_generator(seed, "pretraining picture", index)
    creature = creatures.random_creature(rng)
    while creatures.is_held_out(creature, pairs):
        creature = creatures.random_creature(rng)
    picture, mask = creatures.draw(creature, creatures.random_pose(rng))
    return picture, mask, attribute_indices(creature)


def caption(attributes: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> str:
    """Describe a picture: `a photo of a bird, striped red head, plain blue wing, on sand`.

    attributes: (6, 2) as above; visible: (6,) bool. Parts come in random order, each is left out with
    probability 0.15, the background with 0.3, and one caption in ten is empty (for guidance).
    """
    if rng.uniform() < 0.1:
        return ""
    phrases = []
    for label in rng.permutation(len(creatures.LABELS)):
        first, second = attributes[label]
        if label == 0 and rng.uniform() > 0.3:
            phrases.append(f"on {list(creatures.BACKGROUNDS)[first]}")
        elif label > 0 and visible[label] and rng.uniform() > 0.15:
            look = creatures.Look(list(creatures.COLOURS)[first], creatures.PATTERNS[second])
            phrases.append(f"{look} {creatures.LABELS[label]}")
    return ", ".join(["a photo of a bird", *phrases])


def patch_fractions(masks: np.ndarray) -> np.ndarray:
    """The share of each label in each patch: (n, 128, 128) uint8 → (n, 16, 16, 6) float32."""
    side = masks.shape[1] // GRID
    blocks = masks.reshape(len(masks), GRID, side, GRID, side)
    return np.stack([(blocks == label).mean((2, 4)) for label in range(len(creatures.LABELS))], -1).astype(np.float32)


def patch_codes(fractions: np.ndarray, attributes: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """What each patch shows, as a vector: (n, 16, 16, 23) float32.

    Coordinates: foreground minus background (1), part (5), background kind (8), colour (6), pattern (3), each
    group scaled by its weight and averaged over the patch's area.
    fractions: (n, 16, 16, 6) from `patch_fractions`; attributes: (n, 6, 2).
    """
    kinds, colours = np.eye(len(creatures.BACKGROUNDS)), np.eye(len(creatures.COLOURS))
    patterns = np.eye(len(creatures.PATTERNS))
    background, parts = fractions[..., :1], fractions[..., 1:]
    groups = (
        1 - 2 * background,
        parts,
        background * kinds[attributes[:, 0, 0]][:, None, None],
        np.einsum("nhwp,npc->nhwc", parts, colours[attributes[:, 1:, 0]]),
        np.einsum("nhwp,npc->nhwc", parts, patterns[attributes[:, 1:, 1]]),
    )
    return np.concatenate([weight * group for weight, group in zip(weights, groups, strict=True)], -1).astype(
        np.float32
    )
