"""Shape: what of drawings passes, and what of made-up outlines does not."""

import numpy as np
import pytest

from partcraft_kedro.drawn.creatures import Creatures
from partcraft_kedro.drawn.faces import Faces
from partcraft_kedro.drawn.outlines import Outlines


class Remembering:
    """A world that remembers what its pictures show; stands in for a judge that is never wrong."""

    def __init__(self):
        super().__init__()
        self.drawn = {}

    def draw(self, subject, pose):
        drawing = super().draw(subject, pose)
        self.drawn[drawing.picture.tobytes()] = drawing.details[1::2, 1::2]
        return drawing

    def outlines(self, world, pictures):
        shown = (pictures * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        return np.stack([self.drawn[picture.tobytes()] for picture in shown])


class KnownCreatures(Remembering, Creatures):
    pass


class KnownFaces(Remembering, Faces):
    pass


def fresh(world, count):
    """True outlines of other drawings, (count, 64, 64)."""
    rng = np.random.default_rng(0)
    drawings = [world.draw(world.random_subject(rng), world.random_pose(rng)) for _ in range(count)]
    return np.stack([drawing.details[1::2, 1::2] for drawing in drawings])


@pytest.fixture(scope="module", params=[KnownCreatures, KnownFaces], ids=lambda kind: kind.name)
def usual(request):
    world = request.param()
    return Outlines.of_drawings(world, world, count=200)


def test_about_nine_drawings_of_ten_pass(usual):
    assert 0.8 <= usual.passes(fresh(usual.world, 60)).mean() < 1


def test_bounds_are_of_every_label_and_detail(usual):
    names = len(usual.world.labels) + len(usual.world.details)
    assert usual.low.shape == usual.high.shape == (names + len(usual.world.details),)
    assert (usual.low <= usual.high).all()
    assert len(usual.pieces) == names
    assert usual.pieces.any(1).all()
    for number, name in enumerate((*usual.world.labels, *usual.world.details)):
        assert usual.pieces[number, 0] == (name in usual.world.hidden)


def test_a_picture_without_a_part_fails(usual):
    whole = next(outline for outline in fresh(usual.world, 10) if usual.passes(outline[None])[0])
    for label in usual.world.looks:
        own = [usual.world.value(name) for name, host in usual.world.details.items() if host == label]
        without = np.where(np.isin(whole, [usual.world.value(label), *own]), 0, whole)
        assert not usual.passes(without[None])[0] or label in usual.world.hidden


# --- By hand: a creature of rectangles


CREATURE = KnownCreatures()
BACKGROUND, BODY, HEAD, WING, TAIL, LEGS, BEAK, EYE = range(8)


def creature():
    outline = np.zeros((64, 64), np.uint8)
    for value, rows, columns in (
        (BODY, (24, 46), (20, 44)),
        (TAIL, (28, 36), (6, 20)),
        (WING, (30, 38), (26, 36)),
        (HEAD, (12, 26), (42, 56)),
        (BEAK, (18, 22), (56, 60)),
        (EYE, (15, 20), (48, 53)),
        (LEGS, (46, 54), (26, 30)),
        (LEGS, (46, 54), (34, 38)),
    ):
        outline[slice(*rows), slice(*columns)] = value
    return outline


@pytest.fixture(scope="module")
def rectangles():
    """What is usual where every creature is this one, up to two in three parts."""
    areas = np.bincount(creature().ravel(), minlength=8)
    low, high = (np.concatenate([factor * areas, [share, share]]) for factor, share in ((0.67, 0.0), (1.5, 1.0)))
    low[8 + 1] = 0.9  # of the eye's border lies in the head
    pieces = np.zeros((8, 3), bool)
    pieces[:, 1] = True
    pieces[LEGS] = True
    return Outlines(CREATURE, low, high, pieces)


def changed(*patches):
    outline = creature()
    for value, rows, columns in patches:
        outline[slice(*rows), slice(*columns)] = value
    return outline


@pytest.mark.parametrize(
    ("outline", "passes"),
    [
        (creature(), True),
        (creature()[:, ::-1], True),
        (changed((BODY, (22, 24), (20, 44))), True),  # a little larger
        (changed((TAIL, (2, 3), (2, 5))), True),  # a speck is no second tail
        (changed((TAIL, (2, 4), (2, 4))), False),  # four pixels are
        (np.where(np.isin(creature(), (HEAD, BEAK, EYE)), BACKGROUND, creature()).astype(np.uint8), False),
        (changed((HEAD, (2, 7), (4, 12))), False),  # two heads
        (changed((HEAD, (15, 20), (48, 53)), (EYE, (2, 7), (48, 53))), False),  # an eye outside of the head
        (changed((HEAD, (15, 20), (48, 53))), False),  # no eye
        (changed((EYE, (22, 24), (44, 46))), False),  # two eyes, of one's size together
        (changed((BODY, (26, 60), (20, 44))), False),  # too large
        (changed((BODY, (28, 36), (6, 20))), False),  # the tail is all body
    ],
)
def test_a_creature_of_rectangles_by_hand(rectangles, outline, passes):
    assert rectangles.passes(np.stack([outline, creature()])).tolist() == [passes, True]


def test_a_number_of_pieces_that_no_drawing_has_fails(rectangles):
    scattered = changed(*((LEGS, (row, row + 2), (4, 6)) for row in (48, 52, 56, 60)))
    assert not rectangles.passes(scattered[None])[0]
