from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from partcraft_kedro.drawn.creatures import COLOURS, Creatures, make_species
from partcraft_kedro.drawn.shapes import PATTERNS
from partcraft_kedro.drawn.world import PLACES

WORLD = Creatures()
PARTS = tuple(WORLD.looks)
FIVE = dict(zip(PARTS, ("red", "yellow", "green", "blue", "purple"), strict=True))


def uniform(look):
    return {part: look for part in PARTS} | {"background": "sky"}


def plain_drawing(seed):
    """A creature with another plain colour for each part, in even light, on rock, which is grey."""
    subject = {part: f"plain {colour}" for part, colour in FIVE.items()} | {"background": "rock"}
    pose = WORLD.random_pose(np.random.default_rng(seed))
    return WORLD.draw(subject, replace(pose, brightness=1.0, light_strength=0.0, legs_visible=True))


def close_to(picture, colour):
    return (np.abs(picture.astype(int) - np.array(colour)) <= 1).all(-1)


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_agrees_with_the_colours_that_are_drawn(seed):
    drawing = plain_drawing(seed)
    for part, colour in FIVE.items():
        inside = drawing.mask == WORLD.value(part)
        painted = close_to(drawing.picture, COLOURS[colour])
        assert painted.sum() > 50
        assert inside[painted].all()
        # Neither the head's eye and beak, nor the rim between legs that touch.
        away_from_rim = binary_erosion(drawing.details == WORLD.value(part), np.ones((3, 3)), iterations=2)
        assert painted[away_from_rim].mean() > (0.8 if part == "legs" else 0.999)
    low, high = (np.array(colour) for colour in PLACES["rock"])
    away = binary_erosion(drawing.mask == 0, np.ones((3, 3)))
    assert ((drawing.picture[away] >= low - 1) & (drawing.picture[away] <= high + 1)).all()


def test_the_eye_lies_within_the_head_and_the_beak_at_its_edge():
    drawing = plain_drawing(0)
    shares = {}
    for detail in WORLD.details:
        mask = drawing.details == WORLD.value(detail)
        ring = binary_dilation(mask) & ~mask
        shares[detail] = (drawing.details[ring] == WORLD.value("head")).mean()
    assert shares["eye"] > 0.9
    assert 0.1 < shares["beak"] < 0.7


def test_hidden_legs_are_in_neither_picture_nor_mask(rng):
    subject, pose = WORLD.random_subject(rng), WORLD.random_pose(rng)
    shown = WORLD.draw(subject, replace(pose, legs_visible=True))
    hidden = WORLD.draw(subject, replace(pose, legs_visible=False))
    legs = WORLD.value("legs")
    assert (shown.mask == legs).any()
    assert not (hidden.mask == legs).any()
    elsewhere = binary_erosion(shown.mask != legs, np.ones((3, 3)))
    assert np.array_equal(shown.picture[elsewhere], hidden.picture[elsewhere])


def test_one_creature_in_twelve_sits(rng):
    assert 1 / 24 < np.mean([not WORLD.random_pose(rng).legs_visible for _ in range(600)]) < 1 / 6


@pytest.mark.parametrize("pattern", PATTERNS)
def test_only_patterned_parts_carry_a_second_colour(pattern):
    pose = WORLD.random_pose(np.random.default_rng(2))
    drawing = WORLD.draw(uniform(f"{pattern} green"), replace(pose, brightness=1.0, light_strength=0.0))
    inside = binary_erosion(drawing.mask == WORLD.value("body"), np.ones((3, 3)), iterations=3)
    second = ~close_to(drawing.picture, COLOURS["green"])[inside]
    assert 0.1 < second.mean() < 0.8 if pattern != "plain" else not second.any()


@pytest.mark.parametrize("part", PARTS)
def test_a_pattern_leaves_the_outlines_as_they_are(part):
    pose = WORLD.random_pose(np.random.default_rng(1))
    plain, striped = (WORLD.draw(uniform("plain red") | {part: look}, pose) for look in ("plain red", "striped blue"))
    assert np.array_equal(plain.details, striped.details)


def test_species_deal_each_part_s_looks_evenly():
    species = make_species(40, seed=1)  # 18 looks: each twice, four of them three times
    assert species == make_species(40, seed=1) != make_species(40, seed=2)
    for part, (styles, colours) in WORLD.looks.items():
        counts = {f"{style} {colour}": 0 for style in styles for colour in colours}
        for looks in species:
            counts[looks[part]] += 1
        assert set(counts.values()) <= {2, 3}


def test_a_species_members_have_its_looks_before_any_background(rng):
    members = [WORLD.random_member(3, 20, rng, seed=4) for _ in range(30)]
    assert all({part: member[part] for part in PARTS} == make_species(20, seed=4)[3] for member in members)
    assert len({member["background"] for member in members}) > 4


def test_held_out_pairs_keep_a_species_combination_from_being_shown(rng):
    one, other = (looks | {"background": "sky"} for looks in make_species(20, seed=0)[:2])
    free = uniform("plain red")
    assert not WORLD.is_held_out(free)
    assert WORLD.is_held_out(one)
    assert WORLD.is_held_out(free | {part: one[part] for part in ("head", "wing")})
    assert WORLD.is_held_out(free | {part: one[part] for part in ("body", "tail")})
    crossed = {"head": one["head"], "wing": other["wing"], "body": one["body"], "tail": other["tail"]}
    assert not WORLD.is_held_out(free | crossed)
    pairs = {
        (pair, looks[pair[0]], looks[pair[1]])
        for looks in make_species(20, seed=0)
        for pair in (("head", "wing"), ("body", "tail"))
    }
    for subject in (WORLD.random_subject(rng) for _ in range(500)):
        shown = {(pair, subject[pair[0]], subject[pair[1]]) for pair, _, _ in pairs}
        assert WORLD.is_held_out(subject) == bool(shown & pairs)
