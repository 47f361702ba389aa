"""The pictures that tiny learns from, and what it is told about them."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from partcraft_kedro.drawn.shapes import SIZE
from partcraft_kedro.drawn.world import World
from partcraft_kedro.drawn.worlds import COLOURS, LABELS, PLACES, STYLES, WORLDS, attributes, hosts, numbers
from partcraft_kedro.randomness import numpy_generator

GRID = 16  # patches each way, 8 pixels each


@dataclass(frozen=True)
class PretrainingPictures:
    """Drawings of all worlds in turn, memory-mapped.

    pictures: (n, 128, 128, 3) uint8; details: (n, 128, 128) uint8 in the order of (*LABELS, *DETAILS);
    attributes: (n, len(LABELS), 2) int16, as `worlds.attributes` has them.
    """

    pictures: np.ndarray
    details: np.ndarray
    attributes: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)


def world_of(index: int) -> World:
    """Pictures of all worlds alternate."""
    return list(WORLDS.values())[index % len(WORLDS)]


def draw_pretraining_pictures(folder: Path, count: int, seed: int) -> PretrainingPictures:
    """Draw `count` subjects, none of which is held out."""
    shapes = {"pictures": (SIZE, SIZE, 3), "details": (SIZE, SIZE), "attributes": (len(LABELS), 2)}
    paths = [folder / f"{name}.npy" for name in shapes]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        partial_paths = [path.with_suffix(".partial.npy") for path in paths]
        arrays = [
            np.lib.format.open_memmap(path, "w+", np.int16 if name == "attributes" else np.uint8, (count, *shape))
            for path, (name, shape) in zip(partial_paths, shapes.items(), strict=True)
        ]
        with ProcessPoolExecutor() as pool:
            drawn = pool.map(partial(_draw_one, seed=seed), range(count), chunksize=64)
            for index, one in enumerate(tqdm(drawn, total=count, desc="draw pictures")):
                for array, value in zip(arrays, one, strict=True):
                    array[index] = value
        for array, partial_path, path in zip(arrays, partial_paths, paths, strict=True):
            array.flush()
            partial_path.rename(path)
    return PretrainingPictures(*(np.load(path, mmap_mode="r") for path in paths))


def _draw_one(index: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng, world = numpy_generator(seed, "pretraining picture", index), world_of(index)
    subject = world.random_subject(rng)
    while world.is_held_out(subject):
        subject = world.random_subject(rng)
    drawing = world.draw(subject, world.random_pose(rng))
    return drawing.picture, numbers(world)[drawing.details], attributes(world, subject)


def caption(world: World, looks: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> str:
    """Describe a picture: `a photo of a bird, striped red head, plain blue wing, on sand`.

    looks: (len(LABELS), 2) as above; visible: (len(LABELS),) bool. Parts come in random order, each is left out with
    probability 0.15, the background with 0.3, and one caption in ten is empty (for guidance).
    """
    if rng.uniform() < 0.1:
        return ""
    phrases = []
    for position in rng.permutation(len(world.labels)):
        label = LABELS.index(world.labels[position])
        first, second = looks[label]
        if position == 0 and rng.uniform() > 0.3:
            phrases.append(f"on {PLACES[first]}")
        elif position > 0 and visible[label] and rng.uniform() > 0.15:
            phrases.append(f"{STYLES[first]} {COLOURS[second]} {LABELS[label]}")
    return ", ".join([f"a photo of a {world.noun}", *phrases])


def patch_fractions(details: np.ndarray) -> np.ndarray:
    """The share of each label in each patch: (n, 128, 128) uint8 → (n, 16, 16, len(LABELS)) float32."""
    side = details.shape[1] // GRID
    blocks = hosts()[details].reshape(len(details), GRID, side, GRID, side)
    return np.stack([(blocks == label).mean((2, 4)) for label in range(len(LABELS))], -1).astype(np.float32)


def patch_codes(fractions: np.ndarray, looks: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """What each patch shows, as a vector, (n, 16, 16, width) float32.

    Coordinates: foreground minus background (1), part (each), place (each), colour (each), style (each), every group
    scaled by its weight and averaged over the patch's area.
    fractions: (n, 16, 16, len(LABELS)) from `patch_fractions`; looks: (n, len(LABELS), 2).
    """
    background, parts = fractions[..., :1], fractions[..., 1:]
    places, styles, colours = np.eye(len(PLACES)), np.eye(len(STYLES)), np.eye(len(COLOURS))
    # Of parts that a picture's world does not have the share is 0, whatever look ABSENT stands for.
    groups = (
        1 - 2 * background,
        parts,
        background * places[looks[:, 0, 0]][:, None, None],
        np.einsum("nhwp,npc->nhwc", parts, colours[looks[:, 1:, 1]]),
        np.einsum("nhwp,npc->nhwc", parts, styles[looks[:, 1:, 0]]),
    )
    return np.concatenate([weight * group for weight, group in zip(weights, groups, strict=True)], -1).astype(
        np.float32
    )


CODE_WIDTH = 1 + len(LABELS) - 1 + len(PLACES) + len(COLOURS) + len(STYLES)
