"""All drawn worlds, and the words that they are told in together.

A further world is a file beside creatures.py and a place in WORLDS; the base model learns it at its next `pretrain`.
"""

import numpy as np

from partcraft_kedro.drawn.creatures import Creatures
from partcraft_kedro.drawn.faces import Faces
from partcraft_kedro.drawn.world import PLACES as _PLACES
from partcraft_kedro.drawn.world import Subject, World

WORLDS: dict[str, World] = {world.name: world for world in (Creatures(), Faces())}


def _distinct(words: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


LABELS = ("background", *(part for world in WORLDS.values() for part in world.looks))
"""Of all worlds; no two share a part's name."""
DETAILS = tuple(detail for world in WORLDS.values() for detail in world.details)
"""Of all worlds, counted on from LABELS in masks of details."""
PLACES = tuple(_PLACES)
STYLES = _distinct([style for world in WORLDS.values() for styles, _ in world.looks.values() for style in styles])
COLOURS = _distinct([colour for world in WORLDS.values() for _, colours in world.looks.values() for colour in colours])
ABSENT = -1
"""In `attributes`: of labels that a world does not have."""


def numbers(world: World) -> np.ndarray:
    """A world's own mask values, labels then details → their numbers in (*LABELS, *DETAILS), uint8."""
    names = (*LABELS, *DETAILS)
    return np.array([names.index(name) for name in (*world.labels, *world.details)], np.uint8)


def hosts() -> np.ndarray:
    """Numbers in (*LABELS, *DETAILS) → numbers in LABELS, a detail's that of the label that it lies in, uint8."""
    within = {detail: host for world in WORLDS.values() for detail, host in world.details.items()}
    return np.array([*range(len(LABELS)), *(LABELS.index(within[detail]) for detail in DETAILS)], np.uint8)


def attributes(world: World, subject: Subject) -> np.ndarray:
    """A subject's looks as numbers, (len(LABELS), 2) int16: of the background (place, 0), of a part (style, colour),
    ABSENT for parts of other worlds."""
    rows = np.full((len(LABELS), 2), ABSENT, np.int16)
    rows[0] = PLACES.index(subject["background"]), 0
    for part in world.looks:
        style, colour = subject[part].split()
        rows[LABELS.index(part)] = STYLES.index(style), COLOURS.index(colour)
    return rows
