"""What is true of pictures made from drawings, by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from partcraft_kedro.drawn.creatures import Creatures
from partcraft_kedro.drawn.outlines import Outlines
from partcraft_kedro.drawn.truth import Truth

WORLD = Creatures()
PARTS = tuple(WORLD.looks)
RED, BLUE = ({part: f"plain {colour}" for part in PARTS} for colour in ("red", "blue"))


class Witness:
    """Stands in for a judge: says what it was given, picture by picture."""

    def __init__(self, looks, outlines):
        self.looks, self._outlines = looks, outlines

    def attributes(self, world, pictures):
        return self.looks[: len(pictures)]

    def outlines(self, world, pictures):
        return self._outlines[: len(pictures)]


def some_background():
    """Outlines that pass wherever some background shows."""
    count = len(WORLD.labels) + 2 * len(WORLD.details)
    low = np.zeros(count)
    low[0] = 1
    pieces = np.ones((len(WORLD.labels) + len(WORLD.details), 3), bool)
    return Outlines(WORLD, low, np.full(count, np.inf), pieces)


def truth(matching, looks=(), outlines=()):
    return Truth(WORLD, Witness(list(looks), np.array(outlines)), some_background(), matching)


def pose(seed, *, legs):
    return replace(WORLD.random_pose(np.random.default_rng(seed)), legs_visible=legs)


@pytest.fixture
def records():
    """The first sits, the second stands."""
    rows = [
        {"id": "a", **WORLD.to_row(RED | {"background": "sky"}, pose(0, legs=False))},
        {"id": "b", **WORLD.to_row(BLUE | {"background": "sea"}, pose(1, legs=True))},
    ]
    return pd.DataFrame(rows).set_index("id")


MATCHING = {0: "background", 1: "head", 2: "legs", 3: "tail"}


def planned(sources, swapped):
    return pd.Series({"sources": list(sources), "swapped": list(swapped)})


def test_a_reconstruction_should_show_its_base(records):
    assert truth(MATCHING).intended(planned("a", []), records) == (RED | {"background": "sky"}, pose(0, legs=False))


def test_swapped_parts_come_from_their_sources_and_the_pose_stays(records):
    subject, shown = truth(MATCHING).intended(planned("abb", [1, 0]), records)
    assert subject == RED | {"background": "sea", "head": "plain blue"}
    assert shown == pose(0, legs=False)


def test_a_part_that_stands_for_nothing_stays_the_base_s(records):
    subject, _ = truth(MATCHING).intended(planned("ab", [7]), records)
    assert subject == RED | {"background": "sky"}


@pytest.mark.parametrize(("base", "source", "legs"), [("a", "b", True), ("b", "a", False)])
def test_legs_show_where_those_of_their_source_do(records, base, source, legs):
    subject, shown = truth(MATCHING).intended(planned([base, source], [2]), records)
    assert subject["legs"] == records.loc[source, "legs"]
    seed = {"a": 0, "b": 1}[base]
    assert shown == pose(seed, legs=legs)


def test_intended_pictures_are_drawn_batch_by_batch(records):
    plan = pd.DataFrame([planned("a", []), planned("ab", [1]), planned("ab", [2])])
    batches = list(truth(MATCHING).draw_intended(plan, records, batch=2))
    assert [len(batch) for batch in batches] == [2, 1]
    lent = WORLD.draw(RED | {"background": "sky", "legs": "plain blue"}, pose(0, legs=True)).picture
    assert np.array_equal(batches[1][0], lent)


def scored(seen, subject):
    outlines = np.zeros((1, 64, 64), np.uint8)
    return truth(MATCHING, [seen], outlines).score([subject], np.zeros((1, 128, 128, 3), np.uint8)).loc[0]


def test_the_judge_s_view_by_hand():
    """Intended: red on sky, with a blue head and a blue wing. The wing came, the head did not, the tail changed."""
    subject = RED | {"background": "sky", "head": "plain blue", "wing": "plain blue"}
    seen = subject | {"head": "plain red", "tail": "plain blue"}
    row = scored(seen, subject)
    assert row["judge"] == pytest.approx(4 / 6)
    assert (row["asked"], row["seen"], row["shape"]) == (subject, seen, 1.0)


def test_half_a_look_is_none():
    subject = RED | {"background": "sky"}
    assert scored(subject | {"head": "striped red"}, subject)["judge"] == pytest.approx(5 / 6)


def test_legs_that_do_not_show_are_not_counted_and_other_parts_are():
    subject = RED | {"background": "sky"}
    hidden = scored(subject | {"legs": None}, subject)
    assert hidden["judge"] == 1 and "legs" not in hidden["asked"] and "legs" not in hidden["seen"]
    missing = scored(subject | {"wing": None}, subject)
    assert missing["judge"] == pytest.approx(5 / 6) and missing["asked"]["wing"] and missing["seen"]["wing"] is None


def test_looks_by_part_are_those_of_the_labels_that_parts_stand_for():
    looks = {"background": "sky", "legs": "plain red", "tail": None, "wing": "plain blue"}
    assert truth(MATCHING).by_part(looks, 6) == ["sky", None, "plain red", None, None, None]


def test_every_picture_has_its_own_row():
    subjects = [colours | {"background": "sky"} for colours in (RED, BLUE)]
    outlines = np.stack([np.zeros((64, 64)), np.ones((64, 64))]).astype(np.uint8)  # the second is all body
    looks = [subjects[0], subjects[0]]
    rows = truth(MATCHING, looks, outlines).score(subjects, np.zeros((2, 128, 128, 3), np.uint8))
    assert rows["judge"].tolist() == [1, pytest.approx(1 / 6)]
    assert rows["shape"].tolist() == [1, 0]
