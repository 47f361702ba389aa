"""Faces: portraits of drawn persons, for the paper's transfer of hair, eyes and mouth (its Fig. 4).

Two kinds of persons, women and men, who differ in how often they wear which hair and mouth, as people do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from partcraft_kedro.drawn import shapes
from partcraft_kedro.drawn.creatures import COLOURS
from partcraft_kedro.drawn.world import PLACES, Drawing, Subject, World

_HAIR = {
    "black": (44, 40, 46),
    "brown": (112, 68, 40),
    "yellow": (232, 196, 92),
    "red": (186, 70, 36),
    "white": (226, 224, 220),
    "blue": (66, 112, 196),
}
_IRIS = {"blue": (56, 120, 216), "green": (52, 150, 70), "brown": (122, 70, 34), "purple": (146, 68, 178)}
_LIPS = {"red": (206, 44, 52), "purple": (138, 52, 132), "brown": (140, 78, 62)}
_SKIN = {"pale": (248, 222, 200), "tan": (224, 172, 128), "dark": (142, 94, 66)}
_WHITE, _PUPIL, _FRAME, _TEETH = (250, 250, 248), (24, 22, 26), (36, 34, 48), (250, 248, 240)


@dataclass(frozen=True)
class FacePose:
    """How a person is drawn."""

    x: float  # of the face's centre, pixels
    y: float
    scale: float  # pixels per unit; the face is two units high
    angle: float  # radians, of the head
    width: float  # of the face against its height
    gaze: float  # of the pupils, units
    eye_height: float  # units
    mouth_width: float  # units
    light_angle: float  # radians
    light_strength: float  # relative change of brightness over half the picture
    brightness: float
    texture_seed: int


class Faces(World):
    """Persons in front of the same backgrounds as creatures."""

    name = "faces"
    noun = "person"
    looks: ClassVar = {
        "hair": (("short", "long", "curly"), tuple(_HAIR)),
        "eyes": (("round", "narrow", "spectacled"), tuple(_IRIS)),
        "mouth": (("smiling", "open", "flat"), tuple(_LIPS)),
        "face": (("smooth", "freckled", "blushing"), tuple(_SKIN)),
        "clothes": (shapes.PATTERNS, tuple(COLOURS)),
    }
    most_classes = 2
    pose = FacePose

    def random_pose(self, rng: np.random.Generator) -> FacePose:
        return FacePose(
            x=float(64 + rng.uniform(-6, 6)),
            y=float(60 + rng.uniform(-4, 4)),
            scale=float(rng.uniform(36, 41)),
            angle=float(rng.uniform(-0.12, 0.12)),
            width=float(rng.uniform(0.78, 0.88)),
            gaze=float(rng.uniform(-0.05, 0.05)),
            eye_height=float(rng.uniform(0.0, 0.08)),
            mouth_width=float(rng.uniform(0.36, 0.42)),
            light_angle=float(rng.uniform(0, 2 * np.pi)),
            light_strength=float(rng.uniform(0, 0.15)),
            brightness=float(rng.uniform(0.88, 1.06)),
            texture_seed=int(rng.integers(2**31)),
        )

    def draw(self, subject: Subject, pose: FacePose) -> Drawing:
        background = shapes.noise(PLACES[subject["background"]], pose.texture_seed)
        columns, rows = shapes.coordinates()
        x, y = columns - pose.x, rows - pose.y
        canvas, details = shapes.paint(background, self._layers(subject, pose, x, y))
        return self.drawing(shapes.lit(canvas, pose.light_angle, pose.light_strength, pose.brightness), details)

    def _layers(self, subject: Subject, pose: FacePose, x: np.ndarray, y: np.ndarray) -> Iterator[shapes.Layer]:
        """From back to front; x and y in pixels from the face's centre."""
        unit = pose.scale
        # The head turns about the chin, the shoulders stay.
        hx, hy = shapes.turned(x, y, (0, 0.8 * unit), pose.angle)
        hy = hy + 0.8 * unit
        style, colour = subject["hair"].split()
        hair = shapes.flat(_HAIR[colour])
        skin_style, skin = subject["face"].split()

        if style == "long":
            mane = shapes.capsule(hx, hy, (0, -0.3 * unit), (0, 0.85 * unit)) - 1.02 * unit
            yield self.value("hair"), mane, hair
        elif style == "curly":
            yield self.value("hair"), _curls(hx, hy, pose.width * unit, unit), hair

        neck = shapes.capsule(x, y, (0, 0.6 * unit), (0, 1.4 * unit)) - 0.34 * unit
        yield self.value("face"), neck, shapes.flat(_SKIN[skin]) * 0.9
        shoulders = [(-0.5, 1.1), (0.5, 1.1), (1.35, 1.5), (1.6, 3), (-1.6, 3), (-1.35, 1.5)]
        pattern, dye = subject["clothes"].split()
        clothes = np.maximum(
            shapes.polygon(x, y, shoulders, unit) - 0.1 * unit, 0.42 * unit - np.hypot(x, y - 1.02 * unit)
        )
        yield self.value("clothes"), clothes, shapes.patterned(pattern, COLOURS[dye], x, y)

        oval = shapes.ellipse(hx, hy, pose.width * unit, unit)
        yield self.value("face"), oval, _skin(skin_style, _SKIN[skin], hx / unit, hy / unit)
        # The front hair: what of a cap lies above the forehead.
        cap = shapes.ellipse(hx, hy + 0.1 * unit, (pose.width + 0.1) * unit, 1.02 * unit)
        forehead = shapes.ellipse(hx, hy - 0.5 * unit, 0.98 * unit, 1.0 * unit)
        yield self.value("hair"), np.maximum(cap, -forehead), hair

        nose = shapes.capsule(hx, hy, (0.02 * unit, 0.1 * unit), (0.09 * unit, 0.36 * unit)) - 0.045 * unit
        yield self.value("face"), nose, shapes.flat(_SKIN[skin]) * 0.75
        yield from self._eyes(subject["eyes"], pose, hx, hy)
        yield from self._mouth(subject["mouth"], pose, hx, hy)

    def _eyes(self, look: str, pose: FacePose, x: np.ndarray, y: np.ndarray) -> Iterator[shapes.Layer]:
        style, colour = look.split()
        unit = pose.scale
        for side in (-1, 1):
            ex, ey = x - side * 0.38 * unit, y - (pose.eye_height - 0.05) * unit
            if style == "spectacled":
                yield self.value("eyes"), np.hypot(ex, ey) - 0.34 * unit, shapes.flat(_FRAME)
                bridge = shapes.capsule(ex, ey, (0, 0), (-side * 0.38 * unit, 0)) - 0.05 * unit
                yield self.value("eyes"), bridge, shapes.flat(_FRAME)
            height = 0.15 if style == "narrow" else 0.25
            white = shapes.ellipse(ex, ey, 0.29 * unit, height * unit)
            iris, pupil = (np.hypot(ex - pose.gaze * unit, ey) - radius * unit for radius in (0.19, 0.075))
            yield self.value("eyes"), white, shapes.flat(_WHITE)
            yield self.value("eyes"), np.maximum(iris, white + 1), shapes.flat(_IRIS[colour])
            yield self.value("eyes"), np.maximum(pupil, white + 1), shapes.flat(_PUPIL)

    def _mouth(self, look: str, pose: FacePose, x: np.ndarray, y: np.ndarray) -> Iterator[shapes.Layer]:
        style, colour = look.split()
        unit, lips = pose.scale, shapes.flat(_LIPS[colour])
        mx, my = x, y - 0.58 * unit
        half = pose.mouth_width * unit
        if style == "smiling":  # a disc's lower part
            bowl = np.maximum(shapes.ellipse(mx, my + 0.12 * unit, half, 0.32 * unit), -(my + 0.1 * unit))
            yield self.value("mouth"), bowl, lips
            teeth = np.maximum(shapes.ellipse(mx, my + 0.12 * unit, 0.75 * half, 0.16 * unit), -(my + 0.04 * unit))
            yield self.value("mouth"), teeth, shapes.flat(_TEETH)
        elif style == "open":
            yield self.value("mouth"), shapes.ellipse(mx, my, 0.62 * half, 0.22 * unit), lips
            yield self.value("mouth"), shapes.ellipse(mx, my, 0.36 * half, 0.11 * unit), shapes.flat((60, 20, 28))
        else:
            rod = shapes.capsule(mx, my, (-0.8 * half, 0), (0.8 * half, 0)) - 0.1 * unit
            yield self.value("mouth"), rod, lips

    def is_held_out(self, subject: Subject) -> bool:
        """Whether it is one of the third of all pairs of hair and eyes that are kept for persons to learn."""
        ranks = []
        for part in ("hair", "eyes"):
            (styles, colours), (style, colour) = self.looks[part], subject[part].split()
            ranks.append(styles.index(style) + colours.index(colour))
        return sum(ranks) % 3 == 0

    def class_name(self, class_index: int) -> str:
        return ("women", "men")[class_index]

    def random_member(self, class_index: int, classes: int, rng: np.random.Generator, seed: int) -> Subject:
        """Women wear their hair long more often and paint their lips; men wear it short."""
        hair, lips = (((0.1, 0.6, 0.3), (0.5, 0.4, 0.1)), ((0.65, 0.1, 0.25), (0.15, 0.05, 0.8)))[class_index]
        while True:
            subject = self.random_subject(rng)
            for part, position, shares in (("hair", 0, hair), ("mouth", 1, lips)):
                words = subject[part].split()
                words[position] = str(rng.choice(self.looks[part][position], p=shares))
                subject[part] = " ".join(words)
            if self.is_held_out(subject):
                return subject


def _skin(style: str, colour: shapes.Colour, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Skin over the picture; x and y in units from the face's centre."""
    skin = shapes.flat(colour)
    side = np.abs(x)
    if style == "blushing":
        amount = np.clip(1.6 - np.hypot(side - 0.5, y - 0.42) / 0.14, 0, 1)
        return skin + 0.7 * amount[..., None] * (shapes.flat((222, 92, 96)) - skin)
    if style == "freckled":
        spots = [(0.36, 0.36), (0.5, 0.3), (0.62, 0.38), (0.44, 0.5), (0.56, 0.5)]
        nearest = np.min([np.hypot(side - sx, y - sy) for sx, sy in spots], axis=0)
        amount = np.clip((0.05 - nearest) / 0.02, 0, 1)
        return skin + amount[..., None] * (0.5 * skin - skin)
    return skin


def _curls(x: np.ndarray, y: np.ndarray, half_width: float, unit: float) -> np.ndarray:
    """A ring of curls over the head and down to the ears."""
    distance = np.full_like(x, np.inf)
    for angle in np.linspace(-0.15 * np.pi, 1.15 * np.pi, 9):
        centre = (1.0 * half_width * np.cos(angle), -0.1 * unit - 0.85 * unit * np.sin(angle))
        distance = np.minimum(distance, np.hypot(x - centre[0], y - centre[1]) - 0.36 * unit)
    return distance
