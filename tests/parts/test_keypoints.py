"""Keypoint measures, on cases worked by hand."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from partcraft_kedro.images.decoding import load_picture
from partcraft_kedro.parts.keypoints import (
    codes_and_classes,
    foreground_iou,
    keypoint_agreement,
    keypoint_regression_error,
    labels_at_keypoints,
    names_by_keypoints,
    part_centres,
    to_square,
)


def record(keypoints: dict, box=(0, 0, 1, 1), width=40, height=20, split="test") -> dict:
    points = [{"name": name, "x": x, "y": y} for name, (x, y) in keypoints.items()]
    return {"keypoints": points, "box": list(box), "width": width, "height": height, "split": split}


def test_keypoints_follow_the_crop_of_the_pictures(tmp_path) -> None:
    """A white dot stays under its keypoint when a tall picture is cropped and scaled."""
    array = np.zeros((300, 200, 3), np.uint8)
    array[200:210, 30:40] = 255
    Image.fromarray(array).save(tmp_path / "dot.png")
    x, y = to_square(np.array([[35.0, 205.0]]), 200, 300)[0]
    picture = load_picture(tmp_path / "dot.png", 100).mean(-1)
    assert picture[int(y * 100), int(x * 100)] > 250


def test_labels_under_keypoints_by_hand() -> None:
    """40×20: the centre square spans x from 10 to 30."""
    label_map = np.array([[[1, 2], [0, 3]]])
    records = pd.DataFrame([record({"beak": (12, 3), "tail": (29, 19), "lost": (5, 5)})])
    found = labels_at_keypoints(records, label_map)
    assert found[["picture", "name", "label"]].to_numpy().tolist() == [[0, "beak", 1], [0, "tail", 3]]
    assert found.loc[0, ["x", "y"]].tolist() == pytest.approx([0.1, 0.15])


def test_agreement_is_one_for_a_renaming_and_none_for_one_label() -> None:
    found = pd.DataFrame({"name": ["a", "a", "b", "b"], "label": [2, 2, 1, 1]})
    assert keypoint_agreement(found) == {"nmi": 1.0, "ari": 1.0}
    assert keypoint_agreement(found.assign(label=1)) == {"nmi": 0.0, "ari": 0.0}


def test_part_centres_by_hand() -> None:
    centres = part_centres(np.array([[[1, 1], [0, 0]]]), count=2)
    assert centres == pytest.approx(np.array([[0.5, 0.25, 1.0, 0.5, 0.5, 0.0]]))


def test_regression_finds_a_keypoint_that_rides_on_a_part() -> None:
    """The keypoint is where the part is: no error. One that is a tenth of the box away in one test picture: 10 %."""
    grid, rng = 8, np.random.default_rng(0)
    maps, rows = np.zeros((40, grid, grid), int), []
    for i in range(40):
        x, y = rng.integers(0, grid, 2)
        maps[i, y, x] = 1
        at = ((x + 0.5) / grid * 20 + 10, (y + 0.5) / grid * 20)
        rows.append(record({"beak": at}, box=(10, 0, 20, 10), split="train" if i < 39 else "test"))
    records = pd.DataFrame(rows)
    found = labels_at_keypoints(records, maps)
    assert keypoint_regression_error(records, maps, found, count=1) == pytest.approx(0, abs=1e-6)
    found.loc[39, "y"] += 0.05  # 1 of the box's 10 pixels
    assert keypoint_regression_error(records, maps, found, count=1) == pytest.approx(10)


def test_foreground_iou_by_hand() -> None:
    """The box covers the left half of the centre square, the foreground the upper half: one quarter of three."""
    records = pd.DataFrame([record({}, box=(0, 0, 20, 20))])
    label_map = np.array([[[1, 2], [0, 0]]])
    assert foreground_iou(records, label_map) == pytest.approx(1 / 3)


def test_codes_and_classes_by_hand() -> None:
    """Part 1 follows the class, part 2 is the same everywhere, part 3 never shows."""
    classes = np.array(["a", "a", "b", "b"])
    codes = np.array([[0, 1, 5, -1], [1, 1, 5, -1], [2, 2, 5, -1], [3, 2, 5, -1]])
    scores = codes_and_classes(codes, classes)
    assert scores["code_class_nmi"] == pytest.approx(0.5)
    assert scores["same_class_agreement"] == pytest.approx(1.0)
    codes[3, 1] = 1  # the pair of class b no longer agrees in part 1
    assert codes_and_classes(codes, classes)["same_class_agreement"] == pytest.approx((0.5 + 1) / 2)


def test_parts_are_named_after_what_is_special_to_them() -> None:
    """Label 1 holds 3 of 10 crowns and both beaks: beaks are rarer, so it is the beak."""
    found = pd.DataFrame({"name": ["crown"] * 10 + ["left beak"] * 2, "label": [1] * 3 + [2] * 7 + [1] * 2})
    assert names_by_keypoints(found, {"crown": "crown", "left beak": "beak"}) == {1: "beak", 2: "crown"}
