"""Which pictures the figures of a report show: greys that say which they are."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from partcraft_kedro.generation.plan import looked_path, make_plan
from partcraft_kedro.options import EvaluateOptions
from partcraft_kedro.parts.label_maps import save_label_maps
from partcraft_kedro.pipelines.report import nodes
from partcraft_kedro.stages import Stages

NAMES = {0: "background", 1: "head", 2: "tail"}
CODES = np.arange(9).reshape(3, 3)
LOOKS = [["sky", "red", "red"], ["sky", "blue", "green"], ["sky", "blue", "green"]]  # of a chain's pictures


@pytest.fixture
def run(tmp_path):
    """Records with greys 10, 20, 30, and what was planned of them with greys from 100: arguments of nodes."""

    def save(path, value: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (value,) * 3).save(path)

    records = pd.DataFrame({"id": list("abc"), "path": [f"{name}.png" for name in "abc"]})
    for i, path in enumerate(records["path"]):
        save(tmp_path / path, 10 * (i + 1))
    counts = {"reconstructions": 3, "compositions": 1, "max_sources": 3, "transfers": 1, "seed": 0}
    plan = make_plan(list("abc"), CODES, **counts, transferred={"head": 1, "tail": 2})
    plan["path"] = [f"made/{name}.png" for name in plan["id"]]
    for i, path in enumerate(plan["path"]):
        save(tmp_path / path, 100 + i)
        looked_path(tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), i % 3, np.uint8)).save(looked_path(tmp_path / path))
    save_label_maps(np.arange(3, dtype=np.uint8).repeat(16).reshape(3, 4, 4), tmp_path / "part_masks")
    return plan, records, tmp_path / "part_masks", Stages(tmp_path, "test")


def shown_in(figure) -> list[int]:
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    return [int(picture[0, 0, 0]) for picture in pictures if picture.ndim == 3]


def grey_of(records: pd.DataFrame, id: str) -> int:
    return 10 * (list(records["id"]).index(id) + 1)


def test_a_pair_stands_before_what_was_made_of_it(run) -> None:
    plan, records, part_masks, stages = run
    figure = nodes.draw_transfers(plan, records, part_masks, NAMES, EvaluateOptions(), stages)
    made = plan[plan["kind"] == "transfer"]
    first, second = made["sources"].iloc[-1][:2]
    assert first != second
    pair = [grey_of(records, first), grey_of(records, second)]
    assert shown_in(figure) == [*pair, *(100 + row for row in made.index)]


def test_leaks_show_the_picture_before_beside_the_one_after(run) -> None:
    plan, _, _, stages = run
    chain = plan.index[plan["kind"] == "composition"]
    scores = plan.assign(leakage=np.nan, seen=[["sky", "red", "red"]] * len(plan))
    for row, looks in zip(chain, LOOKS, strict=True):
        scores.at[row, "seen"] = looks
    scores.loc[chain[1], "leakage"] = 0.5
    (swapped,) = plan["swapped"][chain[1]]
    measured = {"leakage_by_swap": {"share": [[0.5] * 3] * 3, "pictures": [[1] * 3] * 3}}
    figure = nodes.draw_leakage(scores, measured, NAMES, stages)
    assert shown_in(figure) == [100 + chain[0], 100 + chain[1]]
    changed = [name for part, name in NAMES.items() if part != swapped and LOOKS[0][part] != LOOKS[1][part]]
    told = [text.get_text() for text in figure.texts]
    assert f"another {NAMES[swapped]}\nalso changed: {', '.join(changed)}" in told


def test_regions_are_those_of_the_base_of_the_tokens_and_of_the_picture(run) -> None:
    plan, records, part_masks, stages = run
    scores = plan.assign(iou_looked_found=0.5, iou_looked_mask=0.25, iou_found_mask=0.75)
    scores["label_map"] = [np.zeros(16, np.uint8)] * len(plan)
    figure = nodes.draw_regions(scores, records, part_masks, NAMES, EvaluateOptions(), stages)
    rebuilt = plan[plan["kind"] == "reconstruction"]
    expected, lines = [], []
    for row, sources in rebuilt["sources"].items():
        base = list(records["id"]).index(sources[0])
        expected += [10 * (base + 1), 100 + row, 100 + row]
        lines += [base > 0, row % 3 > 0, False]  # one label all over: outlined unless it is the background
    assert shown_in(figure) == expected
    assert [bool(axis.collections) for axis in figure.axes] == lines
    assert "IoU looked, found 0.50; IoU looked, mask 0.25; IoU found, mask 0.75" in [
        text.get_text() for text in figure.texts
    ]
