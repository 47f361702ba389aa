"""What drawn worlds are painted with: signed distances, textures, layers.

Shapes are signed distance functions in pixels (formulas after Inigo Quilez's "2D distance functions"), antialiased
analytically: coverage = clip(1/2 - distance, 0, 1). A plane is an array of the picture's size, (128, 128) float32.
"""

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

SIZE = 128  # pixels, both ways
Point = tuple[float, float]
Colour = tuple[int, int, int]
Layer = tuple[int, np.ndarray, np.ndarray]  # mask value, signed distance, paint

PATTERNS = ("plain", "striped", "spotted")
_STRIPE_PERIOD = 13.0  # pixels
_SPOT_PERIOD = 13.0  # pixels
_SPOT_RADIUS = 4.2  # pixels
_RIM_WIDTH = 2.0  # pixels


def coordinates() -> tuple[np.ndarray, np.ndarray]:
    """The planes x (to the right) and y (down) of pixel centres."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
    return columns, rows


def turned(x: np.ndarray, y: np.ndarray, origin: Point, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in a frame that sits at `origin`, turned by `angle` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    dx, dy = x - origin[0], y - origin[1]
    return cosine * dx + sine * dy, -sine * dx + cosine * dy


def ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Distance to the ellipse of half axes a and b about the origin, exact to first order at its edge."""
    inner = np.hypot(x / a, y / b)
    slope = np.hypot(x / a**2, y / b**2)
    return inner * (inner - 1) / np.maximum(slope, 1e-6)


def capsule(x: np.ndarray, y: np.ndarray, start: Point, end: Point) -> np.ndarray:
    """Distance to a line from `start` to `end`; less a radius, that of a rod with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)


def polygon(x: np.ndarray, y: np.ndarray, corners: list[Point], size: float) -> np.ndarray:
    """Distance to a polygon whose corners are given in units of `size`."""
    corners = [(size * px, size * py) for px, py in corners]
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        nearest = np.minimum(nearest, capsule(x, y, (x0, y0), (x1, y1)))
        if y0 != y1:  # crossing number: count the edges that a ray to the right passes through
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return np.where(inside, -nearest, nearest)


def flat(colour: Colour) -> np.ndarray:
    """One colour everywhere, (128, 128, 3) float32 in 0..255."""
    return np.broadcast_to(np.array(colour, np.float32), (SIZE, SIZE, 3))


def patterned(pattern: str, colour: Colour, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A colour, plain, with dark bands across x, or with spots in staggered rows along x."""
    if pattern == "striped":
        phase = np.abs((x / _STRIPE_PERIOD) % 1 - 0.5) * _STRIPE_PERIOD  # pixels from a band's middle
        return _mixed(flat(colour), flat(colour) * 0.35, np.clip(_STRIPE_PERIOD / 4 - phase + 0.5, 0, 1))
    if pattern == "spotted":
        row = np.floor(y / _SPOT_PERIOD)
        sx = (x / _SPOT_PERIOD + 0.5 * (row % 2)) % 1 - 0.5
        sy = (y / _SPOT_PERIOD) % 1 - 0.5
        # Spots are cream, but dark where cream would not show.
        bright = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 180
        amount = np.clip(_SPOT_RADIUS - np.hypot(sx, sy) * _SPOT_PERIOD + 0.5, 0, 1)
        return _mixed(flat(colour), flat((40, 36, 44) if bright else (250, 246, 232)), amount)
    return flat(colour)


def _mixed(first: np.ndarray, second: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return first + amount[..., None] * (second - first)


def noise(ends: tuple[Colour, Colour], seed: int) -> np.ndarray:
    """Soft fractal noise between two colours, another kind of texture than that of parts, as in nature."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((SIZE, SIZE), np.float32)
    for cells, weight in ((3, 1.0), (6, 0.6), (12, 0.35), (32, 0.25)):
        grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        plane += weight * np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return _mixed(flat(ends[0]), flat(ends[1]), np.clip(0.5 + 0.5 * plane, 0, 1))


def paint(background: np.ndarray, layers: Iterable[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """Put layers on a background, from back to front: the canvas, (128, 128, 3) float32, and the mask uint8."""
    canvas = background.copy()
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for value, distance, colours in layers:
        coverage = np.clip(0.5 - distance, 0, 1)
        rim = 1 - 0.55 * np.clip(distance + _RIM_WIDTH, 0, 1)  # an outline keeps neighbours of one colour apart
        canvas += coverage[..., None] * (colours * rim[..., None] - canvas)
        mask[coverage >= 0.5] = value
    return canvas, mask


def lit(canvas: np.ndarray, angle: float, strength: float, brightness: float) -> np.ndarray:
    """Light from one side: (128, 128, 3) uint8."""
    x, y = coordinates()
    half = SIZE / 2
    light = (math.cos(angle) * (x - half) + math.sin(angle) * (y - half)) / half
    return np.clip(canvas * (brightness * (1 + strength * light))[..., None] + 0.5, 0, 255).astype(np.uint8)
