"""Creatures: bird-like pictures whose every part, colour and pattern is known exactly.

A photograph cannot tell where its parts really end or what a recomposed bird should have looked like.
A drawing can: each picture here comes with an exact part mask and exact attributes, and any mix of parts
can be drawn again in the same pose. Bodies carry flat colours with stripes or spots; backgrounds carry
soft fractal noise, another kind of texture, as in nature.

Shapes are signed distance functions (formulas after Inigo Quilez's "2D distance functions"), antialiased
analytically: coverage = clip(1/2 - distance in pixels, 0, 1).
"""

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image

from partcraft_kedro.randomness import numpy_generator

SIZE = 128  # pixels, both ways
LABELS = ("background", "body", "head", "wing", "tail", "legs")  # mask value = position
PARTS = LABELS[1:]
COLOURS = {
    "red": (206, 52, 44),
    "yellow": (238, 202, 52),
    "green": (58, 156, 66),
    "blue": (52, 96, 208),
    "purple": (146, 68, 178),
    "white": (240, 240, 236),
}
PATTERNS = ("plain", "striped", "spotted")
# Two ends of the colour range that each background's noise moves between.
BACKGROUNDS = {
    "sky": ((150, 190, 222), (204, 222, 236)),
    "forest": ((34, 58, 40), (66, 92, 60)),
    "sand": ((196, 172, 130), (222, 202, 166)),
    "rock": ((104, 102, 104), (146, 142, 140)),
    "dusk": ((72, 52, 88), (128, 84, 104)),
    "meadow": ((124, 142, 70), (168, 178, 104)),
    "sea": ((24, 86, 106), (58, 130, 142)),
    "earth": ((94, 66, 46), (132, 98, 72)),
}
_STRIPE_PERIOD = 10.0  # pixels
_SPOT_PERIOD = 10.5  # pixels
_SPOT_RADIUS = 3.3  # pixels
_EYE, _BEAK = (24, 22, 26), (232, 140, 44)


@dataclass(frozen=True)
class Look:
    """How one part is painted."""

    colour: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.pattern} {self.colour}"


@dataclass(frozen=True)
class Creature:
    """What is drawn: a look for each part, and the background behind it."""

    body: Look
    head: Look
    wing: Look
    tail: Look
    legs: Look
    background: str

    def attribute(self, label: str) -> str:
        """The look of a part, or the background, in words (`striped red`, `sand`)."""
        return str(getattr(self, label))

    def with_attribute(self, label: str, other: "Creature") -> "Creature":
        """This creature with one part (or the background) taken from another."""
        return replace(self, **{label: getattr(other, label)})


@dataclass(frozen=True)
class Pose:
    """How a creature is drawn: everything about a picture but its attributes."""

    x: float  # centre, pixels
    y: float
    scale: float  # pixels per body unit
    angle: float  # radians, the whole animal
    facing: int  # +1 looks right, -1 left
    head_angle: float  # radians, on the neck
    tail_angle: float
    wing_angle: float
    stride: float  # body units between the feet
    proportions: tuple[float, float, float, float, float]  # factor on each part's size, in PARTS order
    legs_visible: bool
    light_angle: float  # radians
    light_strength: float  # relative change of brightness over half the picture
    brightness: float
    texture_seed: int


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose; one in twelve sits, so that its legs do not show."""
    return Pose(
        x=float(64 + rng.uniform(-9, 9)),
        y=float(62 + rng.uniform(-8, 8)),
        scale=float(rng.uniform(36, 45)),
        angle=float(rng.uniform(-0.25, 0.25)),
        facing=int(rng.choice((-1, 1))),
        head_angle=float(rng.uniform(-0.25, 0.25)),
        tail_angle=float(rng.uniform(-0.3, 0.3)),
        wing_angle=float(rng.uniform(-0.2, 0.25)),
        stride=float(rng.uniform(0.3, 0.5)),
        proportions=tuple(float(factor) for factor in rng.uniform(0.9, 1.12, size=len(PARTS))),
        legs_visible=bool(rng.uniform() > 1 / 12),
        light_angle=float(rng.uniform(0, 2 * np.pi)),
        light_strength=float(rng.uniform(0, 0.15)),
        brightness=float(rng.uniform(0.88, 1.06)),
        texture_seed=int(rng.integers(2**31)),
    )


def random_creature(rng: np.random.Generator) -> Creature:
    """Draw every attribute independently and evenly."""
    looks = {part: Look(str(rng.choice(list(COLOURS))), str(rng.choice(PATTERNS))) for part in PARTS}
    return Creature(**looks, background=str(rng.choice(list(BACKGROUNDS))))


def make_species(count: int, seed: int) -> list[Creature]:
    """The creatures of a dataset, one per species (their background is a placeholder: pictures draw their own).

    Looks are dealt like cards, so that a part's looks are spread as evenly as the number of species allows.
    """
    rng = numpy_generator(seed, "species")
    looks = [Look(colour, pattern) for colour in COLOURS for pattern in PATTERNS]
    hands = {}
    for part in PARTS:
        deck = [looks[i] for _ in range(-(-count // len(looks))) for i in rng.permutation(len(looks))]
        hands[part] = deck[:count]
    return [Creature(**{p: hands[p][i] for p in PARTS}, background="sky") for i in range(count)]


def held_out_pairs(species: list[Creature]) -> set[tuple]:
    """The look pairs by which a base model's pictures are kept apart from these species.

    A picture that shares neither its (head, wing) looks nor its (body, tail) looks with any species
    cannot show a species' combination.
    """
    return {("head", "wing", s.head, s.wing) for s in species} | {("body", "tail", s.body, s.tail) for s in species}


def is_held_out(creature: Creature, pairs: set[tuple]) -> bool:
    """Whether a creature shows one of the held-out pairs."""
    return ("head", "wing", creature.head, creature.wing) in pairs or (
        "body",
        "tail",
        creature.body,
        creature.tail,
    ) in pairs


def draw(creature: Creature, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Paint a creature.

    Returns the picture, (128, 128, 3) uint8, and its exact part mask, (128, 128) uint8 in LABELS order.
    """
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
    canvas = _background(creature.background, pose.texture_seed)
    mask = np.zeros((SIZE, SIZE), np.uint8)

    # Picture coordinates to body coordinates: x forward, y down, in pixels of the unrotated animal.
    cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
    across, down = (columns - pose.x) * pose.facing, rows - pose.y
    x = cosine * across + sine * down
    y = -sine * across + cosine * down

    for part, distance, paint in _shapes(creature, pose, x, y):
        coverage = np.clip(0.5 - distance, 0, 1)
        rim = 1 - 0.35 * np.clip(distance + 1.8, 0, 1)  # a darker rim keeps neighbours of one colour apart
        canvas += coverage[..., None] * (paint * rim[..., None] - canvas)
        mask[coverage >= 0.5] = LABELS.index(part)

    light = (math.cos(pose.light_angle) * (columns - 64) + math.sin(pose.light_angle) * (rows - 64)) / 64
    canvas *= (pose.brightness * (1 + pose.light_strength * light))[..., None]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), mask


def _shapes(creature: Creature, pose: Pose, x: np.ndarray, y: np.ndarray):
    """Yield (part, signed distance in pixels, paint) from back to front."""
    unit = pose.scale
    body, head, wing, tail, legs = (unit * factor for factor in pose.proportions)

    def at(px: float, py: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
        cosine, sine = math.cos(angle), math.sin(angle)
        dx, dy = x - px, y - py
        return cosine * dx + sine * dy, -sine * dx + cosine * dy

    tx, ty = at(-0.5 * unit, 0.02 * unit, 0.3 + pose.tail_angle)
    fan = [(0.1, -0.12), (-0.78, -0.3), (-0.9, 0.0), (-0.78, 0.3), (0.1, 0.12)]
    yield "tail", _polygon(tx, ty, fan, tail) - 0.06 * tail, _paint(creature.tail, tx, ty)

    if pose.legs_visible:
        hips, feet = 0.38 * unit, (0.4 + 0.62) * legs
        distance = np.full_like(x, np.inf)
        for side in (-0.5, 0.5):
            knee = side * pose.stride * unit
            distance = np.minimum(distance, _capsule(x, y, (knee * 0.7, hips), (knee, feet)) - 0.13 * legs)
            distance = np.minimum(distance, _capsule(x, y, (knee, feet), (knee + 0.2 * legs, feet)) - 0.11 * legs)
        yield "legs", distance, _paint(creature.legs, y, x)

    bx, by = at(0, 0, -0.15)
    yield "body", _ellipse(bx, by, 0.74 * body, 0.55 * body), _paint(creature.body, bx, by)

    hx, hy = at(0.6 * unit, -0.5 * unit, pose.head_angle)
    beak = [(0.3, -0.14), (0.72, 0.06), (0.3, 0.18)]
    flat = np.ones((SIZE, SIZE, 1), np.float32)
    yield "head", _polygon(hx, hy, beak, head), flat * np.array(_BEAK, np.float32)
    yield "head", _ellipse(hx, hy, 0.38 * head, 0.36 * head), _paint(creature.head, hx, hy)
    eye = np.hypot(hx - 0.16 * head, hy + 0.1 * head)
    yield "head", eye - 0.09 * head, flat * np.array(_EYE, np.float32)

    wx, wy = at(-0.14 * unit, -0.04 * unit, 0.12 + pose.wing_angle)
    yield "wing", _ellipse(wx, wy, 0.43 * wing, 0.25 * wing), _paint(creature.wing, wx, wy)


def _paint(look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A look as colours over the picture, (128, 128, 3) float32 in 0..255; its pattern follows the part."""
    base = np.array(COLOURS[look.colour], np.float32)
    if look.pattern == "plain":
        return np.broadcast_to(base, (*x.shape, 3))
    if look.pattern == "striped":
        phase = np.abs((x / _STRIPE_PERIOD) % 1 - 0.5) * _STRIPE_PERIOD  # pixels from a band's middle
        amount, second = np.clip(_STRIPE_PERIOD / 4 - phase + 0.5, 0, 1), base * 0.35
    else:
        row = np.floor(y / _SPOT_PERIOD)
        sx = (x / _SPOT_PERIOD + 0.5 * (row % 2)) % 1 - 0.5
        sy = (y / _SPOT_PERIOD) % 1 - 0.5
        amount = np.clip(_SPOT_RADIUS - np.hypot(sx, sy) * _SPOT_PERIOD + 0.5, 0, 1)
        # Spots are cream, but dark where cream would not show.
        second = np.array((40, 36, 44) if look.colour in ("white", "yellow") else (250, 246, 232), np.float32)
    return base + amount[..., None] * (second - base)


def _background(kind: str, seed: int) -> np.ndarray:
    """Soft fractal noise between the two colours of a background, (128, 128, 3) float32."""
    rng = np.random.default_rng(seed)
    noise = np.zeros((SIZE, SIZE), np.float32)
    for cells, weight in ((3, 1.0), (6, 0.6), (12, 0.35), (32, 0.25)):
        grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        noise += weight * np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    low, high = (np.array(colour, np.float32) for colour in BACKGROUNDS[kind])
    return low + np.clip(0.5 + 0.5 * noise, 0, 1)[..., None] * (high - low)


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    inner = np.hypot(x / a, y / b)
    slope = np.hypot(x / a**2, y / b**2)
    return inner * (inner - 1) / np.maximum(slope, 1e-6)


def _capsule(x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def _polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]], size: float) -> np.ndarray:
    corners = [(size * px, size * py) for px, py in corners]
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        nearest = np.minimum(nearest, _capsule(x, y, (x0, y0), (x1, y1)))
        if y0 != y1:  # crossing number: count the edges that a ray to the right passes through
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return np.where(inside, -nearest, nearest)


def creature_to_row(creature: Creature, pose: Pose) -> dict:
    """Attributes and pose as flat, JSON-ready columns."""
    pose_columns = {f"pose_{name}": value for name, value in asdict(pose).items()}
    pose_columns["pose_proportions"] = list(pose.proportions)
    return {label: creature.attribute(label) for label in LABELS} | pose_columns


def creature_from_row(row: dict) -> tuple[Creature, Pose]:
    """The inverse of `creature_to_row`."""
    looks = {part: Look(*reversed(row[part].split(" "))) for part in PARTS}
    pose = {name.removeprefix("pose_"): row[name] for name in row if name.startswith("pose_")}
    pose["proportions"] = tuple(float(factor) for factor in pose["proportions"])
    return Creature(**looks, background=row["background"]), Pose(**pose)
