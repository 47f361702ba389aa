"""Creatures: birds of five parts, each with a pattern and a colour, in front of eight kinds of background."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from partcraft_kedro.drawn import shapes
from partcraft_kedro.drawn.world import PLACES, Drawing, Subject, World
from partcraft_kedro.randomness import numpy_generator

COLOURS = {
    "red": (206, 52, 44),
    "yellow": (238, 202, 52),
    "green": (58, 156, 66),
    "blue": (52, 96, 208),
    "purple": (146, 68, 178),
    "white": (240, 240, 236),
}
_BEAK, _EYE, _PUPIL = (232, 140, 44), (252, 252, 248), (24, 22, 26)
_DEFAULT_SPECIES = 20


@dataclass(frozen=True)
class CreaturePose:
    """How a creature is drawn."""

    x: float  # centre, pixels
    y: float
    scale: float  # pixels per body unit
    angle: float  # radians, the whole animal
    facing: int  # +1 looks right, -1 left
    head_angle: float  # radians, on the neck
    tail_angle: float
    wing_angle: float
    stride: float  # body units between the feet
    proportions: tuple[float, ...]  # factor on each part's size, in the order of parts
    legs_visible: bool
    light_angle: float  # radians
    light_strength: float  # relative change of brightness over half the picture
    brightness: float
    texture_seed: int


class Creatures(World):
    """Species are fixed combinations of looks; backgrounds and poses are independent of them."""

    name = "creatures"
    noun = "bird"
    looks: ClassVar = {part: (shapes.PATTERNS, tuple(COLOURS)) for part in ("body", "head", "wing", "tail", "legs")}
    details: ClassVar = {"beak": "head", "eye": "head"}
    hidden = frozenset({"legs"})
    pose = CreaturePose

    def random_pose(self, rng: np.random.Generator) -> CreaturePose:
        """One in twelve sits, so that its legs do not show."""
        return CreaturePose(
            x=float(64 + rng.uniform(-9, 9)),
            y=float(62 + rng.uniform(-8, 8)),
            scale=float(rng.uniform(36, 45)),
            angle=float(rng.uniform(-0.25, 0.25)),
            facing=int(rng.choice((-1, 1))),
            head_angle=float(rng.uniform(-0.25, 0.25)),
            tail_angle=float(rng.uniform(-0.3, 0.3)),
            wing_angle=float(rng.uniform(-0.2, 0.25)),
            stride=float(rng.uniform(0.3, 0.5)),
            proportions=tuple(float(factor) for factor in rng.uniform(0.9, 1.12, size=len(self.looks))),
            legs_visible=bool(rng.uniform() > 1 / 12),
            light_angle=float(rng.uniform(0, 2 * np.pi)),
            light_strength=float(rng.uniform(0, 0.15)),
            brightness=float(rng.uniform(0.88, 1.06)),
            texture_seed=int(rng.integers(2**31)),
        )

    def draw(self, subject: Subject, pose: CreaturePose) -> Drawing:
        background = shapes.noise(PLACES[subject["background"]], pose.texture_seed)
        # x forward, y down, in pixels of the unrotated animal.
        columns, rows = shapes.coordinates()
        x, y = shapes.turned((columns - pose.x) * pose.facing, rows - pose.y, (0, 0), pose.angle)
        canvas, details = shapes.paint(background, self._layers(subject, pose, x, y))
        return self.drawing(shapes.lit(canvas, pose.light_angle, pose.light_strength, pose.brightness), details)

    def _layers(self, subject: Subject, pose: CreaturePose, x: np.ndarray, y: np.ndarray) -> Iterator[shapes.Layer]:
        """From back to front."""
        unit = pose.scale
        body, head, wing, tail, legs = (unit * factor for factor in pose.proportions)

        tx, ty = shapes.turned(x, y, (-0.5 * unit, 0.02 * unit), 0.3 + pose.tail_angle)
        fan = [(0.1, -0.12), (-0.78, -0.3), (-0.9, 0.0), (-0.78, 0.3), (0.1, 0.12)]
        yield self.value("tail"), shapes.polygon(tx, ty, fan, tail) - 0.06 * tail, _painted(subject["tail"], tx, ty)

        if pose.legs_visible:
            hips, feet = 0.38 * unit, (0.4 + 0.62) * legs
            distance = np.full_like(x, np.inf)
            for side in (-0.5, 0.5):
                knee = side * pose.stride * unit
                rod = shapes.capsule(x, y, (knee * 0.7, hips), (knee, feet)) - 0.13 * legs
                foot = shapes.capsule(x, y, (knee, feet), (knee + 0.2 * legs, feet)) - 0.11 * legs
                distance = np.minimum(distance, np.minimum(rod, foot))
            yield self.value("legs"), distance, _painted(subject["legs"], y, x)

        bx, by = shapes.turned(x, y, (0, 0), -0.15)
        yield self.value("body"), shapes.ellipse(bx, by, 0.74 * body, 0.55 * body), _painted(subject["body"], bx, by)

        hx, hy = shapes.turned(x, y, (0.6 * unit, -0.5 * unit), pose.head_angle)
        beak = [(0.3, -0.14), (0.74, 0.06), (0.3, 0.2)]
        yield self.value("beak"), shapes.polygon(hx, hy, beak, head), shapes.flat(_BEAK)
        yield self.value("head"), shapes.ellipse(hx, hy, 0.38 * head, 0.36 * head), _painted(subject["head"], hx, hy)
        eye = np.hypot(hx - 0.15 * head, hy + 0.08 * head)
        yield self.value("eye"), eye - 0.15 * head, shapes.flat(_EYE)
        yield self.value("eye"), np.hypot(hx - 0.18 * head, hy + 0.08 * head) - 0.085 * head, shapes.flat(_PUPIL)

        wx, wy = shapes.turned(x, y, (-0.14 * unit, -0.04 * unit), 0.12 + pose.wing_angle)
        yield self.value("wing"), shapes.ellipse(wx, wy, 0.43 * wing, 0.25 * wing), _painted(subject["wing"], wx, wy)

    def is_held_out(self, subject: Subject) -> bool:
        """Whether it shares its (head, wing) or its (body, tail) looks with a species of the default dataset: no
        picture without such a pair can show a species' combination."""
        pairs = _held_out_pairs()
        return any((first, second, subject[first], subject[second]) in pairs for first, second in _PAIRS)

    def class_name(self, class_index: int) -> str:
        return f"species_{class_index:02d}"

    def random_member(self, class_index: int, classes: int, rng: np.random.Generator, seed: int) -> Subject:
        """The species in front of any background."""
        return self.random_subject(rng) | make_species(classes, seed)[class_index]


_PAIRS = (("head", "wing"), ("body", "tail"))


@cache
def make_species(count: int, seed: int) -> tuple[Subject, ...]:
    """The looks of a dataset's species, without backgrounds.

    Looks are dealt like cards, so that a part's looks are spread as evenly as the number of species allows.
    """
    rng = numpy_generator(seed, "species")
    looks = [f"{pattern} {colour}" for colour in COLOURS for pattern in shapes.PATTERNS]
    hands = {}
    for part in Creatures.looks:
        hands[part] = [looks[i] for _ in range(-(-count // len(looks))) for i in rng.permutation(len(looks))]
    return tuple({part: hand[i] for part, hand in hands.items()} for i in range(count))


@cache
def _held_out_pairs() -> frozenset[tuple]:
    species = make_species(_DEFAULT_SPECIES, seed=0)
    return frozenset((first, second, s[first], s[second]) for s in species for first, second in _PAIRS)


def _painted(look: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A look as colours over the picture, (128, 128, 3) float32 in 0..255; its pattern follows the part."""
    pattern, colour = look.split()
    return shapes.patterned(pattern, COLOURS[colour], x, y)
