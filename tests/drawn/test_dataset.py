"""Datasets of drawings on disk."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from partcraft_kedro.drawn import shapes
from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.drawn.world import PLACES, World
from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.errors import UserError
from partcraft_kedro.images.decoding import load_picture

COUNTS = {"classes": 2, "pictures_per_class": 4, "test_fraction": 0.25, "seed": 3}


@dataclass(frozen=True)
class BallPose:
    x: float
    texture_seed: int


class Balls(World):
    """A third world: a ball with a stud on a pole."""

    name = "balls"
    noun = "ball"
    looks: ClassVar = {"pole": (("plain",), ("brown",)), "ball": (shapes.PATTERNS, ("red", "blue"))}
    details: ClassVar = {"stud": "ball"}
    pose = BallPose
    _dyes: ClassVar = {"red": (200, 0, 0), "blue": (0, 0, 200), "brown": (90, 60, 30)}

    def random_pose(self, rng):
        return BallPose(float(rng.uniform(50, 80)), int(rng.integers(2**31)))

    def draw(self, subject, pose):
        x, y = shapes.coordinates()
        painted = {}
        for part in self.looks:
            pattern, colour = subject[part].split()
            painted[part] = shapes.patterned(pattern, self._dyes[colour], x, y)
        layers = [
            (self.value("pole"), shapes.capsule(x, y, (pose.x, 64), (pose.x, 120)) - 6, painted["pole"]),
            (self.value("ball"), shapes.ellipse(x - pose.x, y - 50, 30, 30), painted["ball"]),
            (self.value("stud"), np.hypot(x - pose.x, y - 50) - 5, shapes.flat((255, 255, 255))),
        ]
        canvas, details = shapes.paint(shapes.noise(PLACES[subject["background"]], pose.texture_seed), layers)
        return self.drawing(shapes.lit(canvas, 0.0, 0.0, 1.0), details)

    def is_held_out(self, subject):
        return subject["ball"] == "striped red"

    def random_member(self, class_index, classes, rng, seed):
        return self.random_subject(rng) | {"ball": "striped red"}

    def class_name(self, class_index):
        return f"ball_{class_index}"


@pytest.fixture(params=[*WORLDS, "balls"])
def world(request, monkeypatch):
    monkeypatch.setitem(WORLDS, "balls", Balls())
    return WORLDS[request.param]


def test_a_dataset_has_records_that_can_draw_it_again(world, tmp_path):
    records = draw_dataset(world.name, tmp_path / world.name, tmp_path, **COUNTS)
    assert records["id"].is_unique
    assert set(records["world"]) == {world.name}
    assert records["class_name"].value_counts().to_dict() == {world.class_name(0): 4, world.class_name(1): 4}
    assert records.groupby("class_name")["split"].agg(list).tolist() == [["train"] * 3 + ["test"]] * 2
    records.to_parquet(tmp_path / "records.parquet")
    for row in pd.read_parquet(tmp_path / "records.parquet").to_dict("records"):
        subject, pose = world.from_row(row)
        drawing = world.draw(subject, pose)
        assert np.array_equal(load_picture(tmp_path / row["path"], 128), drawing.picture)
        assert np.array_equal(np.asarray(Image.open(tmp_path / row["mask_path"])), drawing.mask)
    assert records["pose_x"].nunique() == 8


def test_a_species_keeps_its_looks(tmp_path):
    records = draw_dataset("creatures", tmp_path, tmp_path, **COUNTS)
    for _, rows in records.groupby("class_name"):
        assert len(rows.drop_duplicates(["body", "head", "wing", "tail", "legs"])) == 1


def test_a_dataset_follows_its_seed_and_grows_without_changing(world, tmp_path):
    def drawn(**counts):
        return draw_dataset(world.name, tmp_path, tmp_path, **COUNTS | counts).set_index("id")

    few = drawn()
    more = drawn(pictures_per_class=5)
    known = few.columns.difference(["split"])
    pd.testing.assert_frame_equal(more.loc[few.index, known], few[known])
    assert not drawn(seed=4)["pose_x"].isin(few["pose_x"]).any()


def test_pictures_that_are_there_are_kept_and_lost_ones_redrawn(world, tmp_path):
    records = draw_dataset(world.name, tmp_path, tmp_path, **COUNTS)
    first, second = (tmp_path / path for path in records["path"][:2])
    third = tmp_path / records["mask_path"][2]
    whole = second.read_bytes(), third.read_bytes()
    first.write_bytes(b"kept")
    second.unlink()
    third.unlink()
    pd.testing.assert_frame_equal(draw_dataset(world.name, tmp_path, tmp_path, **COUNTS), records)
    assert first.read_bytes() == b"kept"
    assert (second.read_bytes(), third.read_bytes()) == whole


def test_more_classes_than_a_world_has_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"images\.classes=3 is more than faces have: give images\.classes=2"):
        draw_dataset("faces", tmp_path, tmp_path, **COUNTS | {"classes": 3})
    assert not list(tmp_path.iterdir())
