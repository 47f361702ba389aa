"""What holds of every drawn world."""

import json

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from partcraft_kedro.drawn.worlds import (
    ABSENT,
    COLOURS,
    DETAILS,
    LABELS,
    PLACES,
    STYLES,
    WORLDS,
    attributes,
    hosts,
    numbers,
)

EVERY_LABEL = [(world, label) for world in WORLDS.values() for label in world.labels]


def with_another_colour(world, subject, label, styled=False):
    """The subject with another place, or another colour of a part; styled: and another style."""
    if label == "background":
        words = [PLACES[PLACES.index(subject[label]) - 4]]
    else:
        (styles, colours), (style, colour) = world.looks[label], subject[label].split()
        words = [styles[styles.index(style) - styled], colours[colours.index(colour) - 1]]
    return subject | {label: " ".join(words)}


def test_drawing_is_deterministic(world):
    pairs = []
    for rng in (np.random.default_rng(5), np.random.default_rng(5)):
        pairs.append((world.random_subject(rng), world.random_pose(rng)))
    assert pairs[0] == pairs[1]
    first, again = (world.draw(*pair) for pair in pairs)
    for name, shape in (("picture", (128, 128, 3)), ("mask", (128, 128)), ("details", (128, 128))):
        one, other = getattr(first, name), getattr(again, name)
        assert np.array_equal(one, other)
        assert (one.dtype, one.shape) == (np.uint8, shape)


@pytest.mark.parametrize(("world", "label"), EVERY_LABEL)
@pytest.mark.parametrize("styled", [False, True])
def test_a_swapped_part_changes_the_picture_there_and_nowhere_else(world, label, styled, rng):
    subject, pose = world.random_subject(rng), world.random_pose(rng)
    swapped = with_another_colour(world, subject, label, styled)
    assert [name for name in world.labels if swapped[name] != subject[name]] == [label]
    before, after = world.draw(subject, pose), world.draw(swapped, pose)
    within = (before.mask == world.labels.index(label)) | (after.mask == world.labels.index(label))
    changed = (before.picture != after.picture).any(-1)
    assert changed[within].mean() > 0.15  # eyes change their iris alone
    # At a seam, where two parts touch, what lies behind them shows a little.
    assert changed[~binary_dilation(within, np.ones((3, 3)), iterations=2)].sum() < 5
    if not styled:
        assert np.array_equal(before.details, after.details)


def test_details_lie_in_their_hosts(world, rng):
    for _ in range(3):
        drawing = world.draw(world.random_subject(rng), world.random_pose(rng))
        assert set(np.unique(drawing.mask)) <= set(range(len(world.labels)))
        for value, label in enumerate(world.labels):
            assert (drawing.mask[drawing.details == value] == value).all()
            assert world.value(label) == value
        for detail, host in world.details.items():
            shown = drawing.details == world.value(detail)
            assert shown.sum() > 20
            assert (drawing.mask[shown] == world.labels.index(host)).all()


def test_every_part_is_drawn(world, rng):
    sizes = []
    for _ in range(4):
        drawing = world.draw(world.random_subject(rng), world.random_pose(rng))
        sizes.append(np.bincount(drawing.mask.ravel(), minlength=len(world.labels)))
    for label, most, least in zip(world.labels, np.max(sizes, 0), np.min(sizes, 0), strict=True):
        assert most > 100
        assert least > 100 or label in world.hidden


def test_a_row_carries_everything_through_json(world, rng):
    subject, pose = world.random_subject(rng), world.random_pose(rng)
    row = json.loads(json.dumps(world.to_row(subject, pose)))
    assert {label: row[label] for label in world.labels} == subject
    assert world.from_row(row | {"id": "001", "path": "a.png"}) == (subject, pose)


def test_random_subjects_cover_every_attribute(world, rng):
    drawn = [world.random_subject(rng) for _ in range(400)]
    assert {subject["background"] for subject in drawn} == set(PLACES)
    for part, (styles, colours) in world.looks.items():
        assert {subject[part] for subject in drawn} == {f"{s} {c}" for s in styles for c in colours}


def test_captions_name_every_look(world, rng):
    subject = world.random_subject(rng)
    caption = world.describe(subject)
    assert caption.startswith(f"a photo of a {world.noun}, ")
    assert caption.endswith(f", on {subject['background']}")
    assert all(f", {subject[part]} {part}" in caption for part in world.looks)


def test_members_of_the_default_classes_are_held_out_and_most_subjects_are_not(world, rng):
    classes = world.most_classes or 20
    for index in range(classes):
        member = world.random_member(index, classes, rng, seed=0)
        assert world.is_held_out(member)
        assert member.keys() == set(world.labels)
    drawn = [world.random_subject(rng) for _ in range(300)]
    assert 0.5 < np.mean([not world.is_held_out(subject) for subject in drawn]) < 0.95
    assert len({world.class_name(index) for index in range(classes)}) == classes


def test_all_worlds_share_one_vocabulary():
    parts = [part for world in WORLDS.values() for part in world.looks]
    assert len(set(LABELS)) == len(LABELS) == 1 + len(parts)  # no two share a part's name
    assert not set(LABELS) & set(DETAILS)
    for words in (STYLES, COLOURS):
        assert len(set(words)) == len(words)


def test_numbers_of_all_worlds_keep_names(world):
    names = (*LABELS, *DETAILS)
    assert [names[number] for number in numbers(world)] == [*world.labels, *world.details]
    for detail, host in world.details.items():
        assert LABELS[hosts()[names.index(detail)]] == host
    assert hosts()[: len(LABELS)].tolist() == list(range(len(LABELS)))


def test_attributes_are_the_words_numbers(world, rng):
    subject = world.random_subject(rng)
    rows = attributes(world, subject)
    assert rows.shape == (len(LABELS), 2)
    for label, (first, second) in zip(LABELS, rows, strict=True):
        if label == "background":
            assert (PLACES[first], second) == (subject[label], 0)
        elif label in world.looks:
            assert f"{STYLES[first]} {COLOURS[second]}" == subject[label]
        else:
            assert first == second == ABSENT
