import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from partcraft_kedro.images import creatures
from partcraft_kedro.images.creatures import (
    BACKGROUNDS,
    COLOURS,
    LABELS,
    PARTS,
    PATTERNS,
    Creature,
    Look,
    creature_from_row,
    creature_to_row,
    draw,
    held_out_pairs,
    is_held_out,
    make_species,
    random_creature,
    random_pose,
)

FIVE = dict(zip(PARTS, ("red", "yellow", "green", "blue", "purple"), strict=True))


def plain_picture(seed):
    """A creature with another plain colour for each part, in even light, on grey."""
    creature = Creature(**{part: Look(colour, "plain") for part, colour in FIVE.items()}, background="rock")
    pose = replace(random_pose(np.random.default_rng(seed)), brightness=1.0, light_strength=0.0, legs_visible=True)
    return draw(creature, pose)


def close_to(picture, colour):
    return (np.abs(picture.astype(int) - np.array(colour)) <= 1).all(-1)


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_agrees_with_the_colours_that_are_drawn(seed):
    picture, mask = plain_picture(seed)
    for part, colour in FIVE.items():
        inside = mask == LABELS.index(part)
        painted = close_to(picture, COLOURS[colour])
        assert painted.sum() > 50
        assert inside[painted].all()
        away_from_rim = binary_erosion(inside, np.ones((3, 3)), iterations=2)
        # The head has an eye and a beak, and legs that touch have a rim between them.
        assert painted[away_from_rim].mean() > (0.8 if part in ("head", "legs") else 0.999)
    low, high = (np.array(colour) for colour in BACKGROUNDS["rock"])
    away = binary_erosion(mask == 0, np.ones((3, 3)))
    assert ((picture[away] >= low - 1) & (picture[away] <= high + 1)).all()


def test_hidden_legs_are_in_neither_picture_nor_mask():
    rng = np.random.default_rng(0)
    creature, pose = random_creature(rng), random_pose(rng)
    shown = draw(creature, replace(pose, legs_visible=True))
    hidden = draw(creature, replace(pose, legs_visible=False))
    legs = LABELS.index("legs")
    assert (shown[1] == legs).any()
    assert not (hidden[1] == legs).any()
    elsewhere = binary_erosion(shown[1] != legs, np.ones((3, 3)))
    assert np.array_equal(shown[0][elsewhere], hidden[0][elsewhere])


def test_drawing_is_deterministic():
    first, again = ([random_creature(rng), random_pose(rng)] for rng in (np.random.default_rng(5) for _ in range(2)))
    assert first == again
    for one, other in zip(draw(*first), draw(*again), strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == np.uint8


@pytest.mark.parametrize("label", LABELS)
def test_a_swapped_part_changes_the_picture_there_and_nowhere_else(label):
    one = Creature(*(Look("red", "plain") for _ in PARTS), background="sky")
    other = Creature(*(Look("blue", "striped") for _ in PARTS), background="sea")
    pose = replace(random_pose(np.random.default_rng(1)), legs_visible=True)
    swapped = one.with_attribute(label, other)
    assert [name for name in LABELS if swapped.attribute(name) != one.attribute(name)] == [label]
    before, mask = draw(one, pose)
    after, same_mask = draw(swapped, pose)
    assert np.array_equal(mask, same_mask)
    changed = (before != after).any(-1)
    assert changed[mask == LABELS.index(label)].mean() > 0.5
    assert not changed[binary_erosion(mask != LABELS.index(label), np.ones((3, 3)), iterations=2)].any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_only_patterned_parts_carry_a_second_colour(pattern):
    creature = Creature(*(Look("green", pattern) for _ in PARTS), background="sky")
    pose = replace(random_pose(np.random.default_rng(2)), brightness=1.0, light_strength=0.0)
    picture, mask = draw(creature, pose)
    inside = binary_erosion(mask == LABELS.index("body"), np.ones((3, 3)), iterations=3)
    second = ~close_to(picture, COLOURS["green"])[inside]
    assert 0.1 < second.mean() < 0.8 if pattern != "plain" else not second.any()


def test_a_row_carries_everything_through_json():
    rng = np.random.default_rng(3)
    creature, pose = random_creature(rng), random_pose(rng)
    row = json.loads(json.dumps(creature_to_row(creature, pose)))
    assert row["head"] == f"{creature.head.pattern} {creature.head.colour}"
    assert creature_from_row(row | {"id": "001", "path": "a.png"}) == (creature, pose)


def test_species_deal_each_part_s_looks_evenly():
    species = make_species(40, seed=1)  # 18 looks: each twice, four of them three times
    assert species == make_species(40, seed=1) != make_species(40, seed=2)
    for part in PARTS:
        counts = {look: 0 for look in (Look(c, p) for c in COLOURS for p in PATTERNS)}
        for creature in species:
            counts[getattr(creature, part)] += 1
        assert set(counts.values()) <= {2, 3}


def test_held_out_pairs_keep_a_species_combination_from_being_shown():
    species = make_species(20, seed=0)
    pairs = held_out_pairs(species)
    one, other = species[:2]
    assert is_held_out(one, pairs)
    assert is_held_out(replace(other, head=one.head, wing=one.wing), pairs)
    assert is_held_out(replace(other, body=one.body, tail=one.tail), pairs)
    ours = held_out_pairs([one])
    assert not is_held_out(replace(other, head=one.head, body=one.body, legs=one.legs), ours)
    assert not is_held_out(replace(other, wing=one.wing, tail=one.tail), ours)


def test_random_creatures_cover_every_attribute():
    rng = np.random.default_rng(0)
    drawn = [random_creature(rng) for _ in range(400)]
    assert {creature.background for creature in drawn} == set(creatures.BACKGROUNDS)
    for part in PARTS:
        assert len({getattr(creature, part) for creature in drawn}) == len(COLOURS) * len(PATTERNS)
