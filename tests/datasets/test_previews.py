import base64
import inspect
import json
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from kedro.io import Version
from PIL import Image, ImageColor

from partcraft_kedro import datasets
from partcraft_kedro.figure_style import part_colours
from partcraft_kedro.parts.label_maps import save_label_maps
from partcraft_kedro.stages import StageRef


def picture_of(preview):
    return np.asarray(Image.open(BytesIO(base64.b64decode(preview))))


@pytest.mark.parametrize(
    "name", ["Figure", "Plot", "Document", "Editable", "Table", "Curves", "LabelMaps", "ModelCard", "Pictures"]
)
def test_what_no_run_has_made_has_no_preview_but_a_kind(tmp_path, name):
    options = {"root": str(tmp_path)} if name == "Pictures" else {}
    if name in ("LabelMaps", "ModelCard"):
        options["version"] = Version(None, None)
    dataset = getattr(datasets, f"{name}Dataset")(filepath=str(tmp_path / "nowhere"), **options)
    assert dataset.preview() is None
    kind = inspect.signature(dataset.preview).return_annotation  # as kedro-viz asks
    assert getattr(kind, "__name__", kind).endswith("Preview")


def test_a_table_may_be_previewed_by_its_best_and_worst_rows(tmp_path):
    dataset = datasets.TableDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(pd.DataFrame({"id": list("abcdef"), "emr": [0.5, 1.0, 0.0, 0.9, 0.2, 0.4], "more": 1}))
    preview = dataset.preview(nrows=4, by="emr", columns=["id", "emr", "judge"])
    assert preview["columns"] == ["id", "emr"]
    assert preview["data"] == [["b", 1.0], ["d", 0.9], ["e", 0.2], ["c", 0.0]]
    assert [row[0] for row in dataset.preview(nrows=9, by="emr")["data"]] == list("bdafec")


def test_losses_are_previewed_as_curves(tmp_path):
    dataset = datasets.CurvesDataset(filepath=str(tmp_path / "t.parquet"))
    dataset.save(pd.DataFrame({"step": [10, 20], "loss_ldm": [0.5, 0.25], "other": 1}))
    preview = dataset.preview(columns=["loss_ldm"])
    json.dumps(preview)
    (curve,) = preview["data"]
    assert (curve["x"], curve["y"], curve["name"]) == ([10, 20], [0.5, 0.25], "loss ldm")


def test_an_adapter_is_previewed_by_its_model_card(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "README.md").write_text("---\ntags: [x]\n---\n# Adapter\n| a | b |\n|---|---|\n| 1 | <b> |\n")
    dataset = datasets.ModelCardDataset(filepath=str(tmp_path / "adapter"), version=Version(None, None))
    dataset.save(tmp_path / "made")
    preview = dataset.preview()
    assert "<h1>Adapter</h1>" in preview and "<td>1</td>" in preview and "tags" not in preview


def test_masks_are_previewed_in_the_parts_colours(tmp_path):
    label_maps = np.zeros((2, 4, 4), np.uint8)
    label_maps[1] = 3
    save_label_maps(label_maps, tmp_path / "made")
    dataset = datasets.LabelMapsDataset(filepath=str(tmp_path / "part_masks"), version=Version(None, None))
    dataset.save(tmp_path / "made")
    sheet = picture_of(dataset.preview())
    colours = [ImageColor.getrgb(part_colours(4)[label]) for label in (0, 3)]
    assert sheet.shape == (128, 256, 3) and [tuple(sheet[64, x]) for x in (64, 192)] == colours


def test_generated_pictures_are_previewed_as_a_contact_sheet(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(120):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i:03d}.png")
    dataset = datasets.PicturesDataset(root=str(tmp_path), filepath=str(tmp_path / "p.json"))
    dataset.save(StageRef(folder, "f", {}, found=True))
    sheet = picture_of(dataset.preview())
    assert sheet.shape == (768, 1152, 3)  # 3:2
    assert [sheet[64, x, 0] for x in (64, 192)] == [0, 2] and sheet[704, 1088, 0] == 106  # from all of them
