"""Recipes inside pictures: read back as they were, and nothing that comes from elsewhere is trusted."""

import json
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.recipes import Recipe, parse_recipe, read_recipe, write_picture
from partcraft_kedro.options import SamplingOptions

SAMPLING = SamplingOptions(steps=7, guidance_scale=2.5, guidance_rescale=0.5, negative_prompt="blurry", batch_size=3)
RECIPE = Recipe(prompt="a photo of a [0,1] [2,3], étoilé", seed=5, noise="two", sampling=SAMPLING, adapter="0a" * 8)


def picture_with(chunks: dict[str, str]) -> BytesIO:
    info, file = PngInfo(), BytesIO()
    for name, text in chunks.items():
        info.add_itxt(name, text)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    file.seek(0)
    return file


def test_a_picture_carries_its_recipe_and_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    write_picture(Image.fromarray(pixels), RECIPE, tmp_path / "made.png")
    found = read_recipe(tmp_path / "made.png")
    assert found == RECIPE.model_copy(update={"sampling": SAMPLING.model_copy(update={"batch_size": 16})})
    assert (np.asarray(Image.open(tmp_path / "made.png")) == pixels).all()


def test_other_programs_read_prompt_and_settings(tmp_path: Path) -> None:
    """Prompt, negative prompt, then one line of `name: value, …`, which is what AUTOMATIC1111's parser splits."""
    write_picture(Image.new("RGB", (24, 16)), RECIPE, tmp_path / "made.png")
    prompt, negative, settings = Image.open(tmp_path / "made.png").text["parameters"].split("\n")
    assert (prompt, negative) == ("a photo of a [0,1] [2,3], étoilé", "Negative prompt: blurry")
    found = dict(setting.split(": ", 1) for setting in settings.split(", ") if ": " in setting)
    assert (found["Steps"], found["CFG scale"], found["Seed"], found["Size"]) == ("7", "2.5", "5", "24x16")


def test_a_picture_without_a_recipe_has_none(tmp_path: Path) -> None:
    assert read_recipe(picture_with({"parameters": "a bird\nSteps: 20, Seed: 1"})) is None
    assert read_recipe(BytesIO(b"no picture")) is None
    Image.new("RGB", (8, 8)).save(tmp_path / "made.jpg")
    assert read_recipe(tmp_path / "made.jpg") is None


WRONG = {
    "no JSON": "{",
    "another's": '{"steps": 3}',
    "a list": "[1, 2]",
    "no adapter": json.dumps(RECIPE.to_json() | {"adapter": "../../etc/passwd"}),
    "too long": json.dumps(RECIPE.to_json() | {"prompt": "a" * 3000}),
    "a further field": json.dumps(RECIPE.to_json() | {"run": "rm"}),
    "a negative seed": json.dumps(RECIPE.to_json() | {"seed": -1}),
    "no end": json.dumps(RECIPE.to_json() | {"sampling": {"steps": 10**9}}),
    "guidance without end": json.dumps(RECIPE.to_json() | {"sampling": {"guidance_scale": float("inf")}}),
    "an option that there is not": json.dumps(RECIPE.to_json() | {"sampling": {"exec": "rm"}}),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_recipe_is_told_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^This recipe .*\.$"):
        parse_recipe(text)
    with pytest.raises(UserError, match=r"^This recipe"):
        read_recipe(picture_with({"partcraft": text}))


def test_text_that_unpacks_without_end_is_not_unpacked() -> None:
    """A chunk of 100 MB of zeros in 100 kB."""
    data = b"partcraft\0\1\0\0\0" + zlib.compress(bytes(10**8))
    chunk = struct.pack(">I", len(data)) + b"iTXt" + data + struct.pack(">I", zlib.crc32(b"iTXt" + data))
    whole = picture_with({}).getvalue()
    assert read_recipe(BytesIO(whole[:33] + chunk + whole[33:])) is None
