from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, label

from partcraft_kedro.drawn.faces import Faces

WORLD = Faces()
PERSON = {
    "background": "rock",
    "hair": "short black",
    "eyes": "round blue",
    "mouth": "flat red",
    "face": "smooth pale",
    "clothes": "plain green",
}
_PAINT = {"hair": (44, 40, 46), "mouth": (206, 44, 52), "face": (248, 222, 200), "clothes": (58, 156, 66)}


def drawn(**looks):
    pose = WORLD.random_pose(np.random.default_rng(3))
    return WORLD.draw(PERSON | looks, replace(pose, brightness=1.0, light_strength=0.0))


def inside(drawing, part, rim=0):
    mask = drawing.mask == WORLD.value(part)
    return binary_erosion(mask, np.ones((3, 3)), iterations=rim) if rim else mask


@pytest.mark.parametrize(("part", "colour"), _PAINT.items())
def test_the_mask_agrees_with_the_colours_that_are_drawn(part, colour):
    drawing = drawn()
    painted = (np.abs(drawing.picture.astype(int) - np.array(colour)) <= 1).all(-1)
    assert painted.sum() > 50
    assert inside(drawing, part)[painted].all()
    # A face has a nose and a neck in other shades.
    assert painted[inside(drawing, part, rim=2)].mean() > (0.6 if part == "face" else 0.999)


@pytest.mark.parametrize(("style", "pieces"), [("round", 2), ("narrow", 2), ("spectacled", 1)])
def test_spectacles_join_the_eyes(style, pieces):
    assert label(inside(drawn(eyes=f"{style} blue"), "eyes"), np.ones((3, 3)))[1] == pieces


def test_narrow_eyes_are_smaller_and_long_hair_larger():
    eyes, hair = (
        [inside(drawn(**{part: f"{style} {colour}"}), part).sum() for style in WORLD.looks[part][0]]
        for part, colour in (("eyes", "blue"), ("hair", "black"))
    )
    wide, narrow, spectacled = eyes
    assert narrow < wide < spectacled
    short, long, curly = hair
    assert short < curly and 1.5 * short < long


@pytest.mark.parametrize("style", WORLD.looks["mouth"][0])
def test_an_open_mouth_and_a_smile_show_more_than_lips(style):
    drawing = drawn(mouth=f"{style} red")
    lips = (np.abs(drawing.picture.astype(int) - np.array(_PAINT["mouth"])) <= 1).all(-1)
    shown = lips[inside(drawing, "mouth", rim=2)].mean()
    assert shown < 0.9 if style != "flat" else shown == 1


@pytest.mark.parametrize("style", WORLD.looks["face"][0])
def test_skins_differ_on_the_cheeks_alone(style):
    before, after = drawn(), drawn(face=f"{style} pale")
    changed = (before.picture != after.picture).any(-1)
    assert changed.any() == (style != "smooth")
    assert binary_dilation(inside(after, "face"), iterations=2)[changed].all()
    assert changed.sum() < 0.25 * inside(after, "face").sum()


def test_a_third_of_all_pairs_of_hair_and_eyes_is_held_out():
    looks = {part: [f"{s} {c}" for s in styles for c in colours] for part, (styles, colours) in WORLD.looks.items()}
    pairs = [(hair, eyes) for hair in looks["hair"] for eyes in looks["eyes"]]
    held = [pair for pair in pairs if WORLD.is_held_out(PERSON | dict(zip(("hair", "eyes"), pair, strict=True)))]
    assert len(held) == len(pairs) / 3
    # No look by itself is unknown to the base model, nor does it say whether a person is held out.
    for position, part in enumerate(("hair", "eyes")):
        assert set(Counter(pair[position] for pair in held)) == set(looks[part])
        assert {pair[position] for pair in set(pairs) - set(held)} == set(looks[part])
    for part in ("mouth", "face", "clothes"):
        assert len({WORLD.is_held_out(PERSON | {part: look}) for look in looks[part]}) == 1


def test_women_and_men_differ_in_how_often_they_wear_what(rng):
    women, men = ([WORLD.random_member(index, 2, rng, seed=0) for _ in range(150)] for index in range(2))
    assert (WORLD.class_name(0), WORLD.class_name(1)) == ("women", "men")
    for part, style, lower, higher in (("hair", "long", men, women), ("hair", "short", women, men)):
        shares = [np.mean([person[part].startswith(style) for person in persons]) for persons in (lower, higher)]
        assert shares[0] < 0.25 and shares[1] > 0.4
    painted = [np.mean([person["mouth"].endswith("brown") for person in persons]) for persons in (women, men)]
    assert painted[0] < 0.3 and painted[1] > 0.6
    for persons in (women, men):  # yet either kind wears everything
        assert {person["hair"].split()[0] for person in persons} == {"short", "long", "curly"}
