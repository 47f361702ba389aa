"""What an adapter carries of its parts."""

import json

import numpy as np
import pytest
from PIL import Image

from partcraft_kedro.errors import UserError
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.parts.sheet import CROP, read_sheet

NAMES = ["background", "head", "Flügel"]


@pytest.fixture
def folder(carry_parts, tmp_path):
    carry_parts(tmp_path, NAMES)
    return tmp_path / "parts"


def test_each_variant_has_a_crop_of_the_picture_that_is_most_typical_of_it(folder) -> None:
    """Of the fixture's pictures each has a colour of its own; the last is the most typical of all variants it has."""
    sheet = read_sheet(folder)
    assert sheet.names == NAMES
    assert [list(of_part) for of_part in sheet.counts] == [[2, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]
    shown = {(0, 0): 3, (0, 2): 2, (1, 0): 0, (1, 3): 3, (2, 0): 1, (2, 2): 3}
    for token, number in shown.items():
        crop = sheet.crop(*token)
        assert crop.shape == (CROP, CROP, 3)
        assert np.abs(crop.mean((0, 1)) - [60 * number, 90, 200 - 60 * number]).max() < 4
    assert sheet.crop(2, 3) is None


def test_variants_lie_in_rows(folder) -> None:
    """More than fit in one."""
    facts = json.loads((folder / "parts.json").read_text())
    facts["pictures"][1] = [1] * 40  # seven in a row
    (folder / "parts.json").write_text(json.dumps(facts))
    colours = np.zeros((6, 7, 3), np.uint8)
    colours[4, 3] = 255
    Image.fromarray(colours).resize((7 * CROP, 6 * CROP), Image.Resampling.NEAREST).save(folder / "1.webp")
    sheet = read_sheet(folder)
    assert sheet.crop(1, 31).min() > 240 and sheet.crop(1, 30).max() < 15


def test_equal_parts_are_written_equally(folder, carry_parts, tmp_path) -> None:
    (tmp_path / "again").mkdir()
    carry_parts(tmp_path / "again", NAMES)
    files = sorted(path.name for path in folder.iterdir())
    assert [(folder / name).read_bytes() for name in files] == [
        (tmp_path / "again/parts" / name).read_bytes() for name in files
    ]


def test_the_card_names_each_part_and_its_tokens(folder) -> None:
    assert "| 2 | Flügel | `<Flügel:0>` to `<Flügel:3>` | `parts/2.webp` | 2 |" in read_sheet(folder).card()


@pytest.mark.parametrize("missing", ["parts.json", "1.webp"])
def test_what_is_not_whole_is_refused(folder, missing) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=rf"parts does not tell an adapter's parts \(.*{missing}.*--pipelines=train"):
        read_sheet(folder)


def test_a_predictor_is_told_from_one_of_other_centroids_and_may_get_its_model_from_elsewhere(folder) -> None:
    predictor = PartPredictor.load(folder, model="elsewhere")
    assert predictor.features == {"model": "tiny"}
    again, other = PartPredictor.load(folder), PartPredictor.load(folder)
    other.variants[2] = -other.variants[2]
    assert predictor.fingerprint == again.fingerprint != other.fingerprint
    settings = json.loads((folder / "part_predictor.json").read_text())
    settings["features"]["model"] = None
    (folder / "part_predictor.json").write_text(json.dumps(settings))
    assert PartPredictor.load(folder, model="elsewhere").features == {"model": "elsewhere"}
