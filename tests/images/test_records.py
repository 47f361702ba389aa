import numpy as np
import pandas as pd
import pytest
from PIL import Image

from partcraft_kedro.errors import UserError
from partcraft_kedro.images.decoding import load_picture, load_pictures, map_by_threads
from partcraft_kedro.images.records import examine_pictures, hash_pictures

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def halves():
    """Left half red, right half blue, 16×16."""
    picture = Image.new("RGB", (16, 16), RED)
    picture.paste(BLUE, (8, 0, 16, 16))
    return picture


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])


def in_mode(picture, mode):
    return picture.quantize(4) if mode == "P" else picture.convert(mode)


@pytest.mark.parametrize(
    ("mode", "name"), [("RGB", "a.png"), ("RGBA", "a.png"), ("P", "a.png"), ("P", "a.gif"), ("CMYK", "a.tif")]
)
def test_every_mode_loads_as_rgb(tmp_path, halves, mode, name):
    in_mode(halves, mode).save(tmp_path / name)
    assert Image.open(tmp_path / name).mode == mode
    assert np.array_equal(load_picture(tmp_path / name, 16), np.asarray(halves))


def test_cmyk_and_grey_photographs_load_as_rgb(tmp_path, halves):
    for mode in ("CMYK", "L"):
        halves.convert(mode).save(tmp_path / "a.jpg", quality=95)
        loaded = load_picture(tmp_path / "a.jpg", 16)
        expected = np.asarray(halves.convert(mode).convert("RGB")).astype(int)
        assert np.abs(loaded - expected)[:, [2, 13]].max() < 16  # away from the edge that JPEG blurs


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_pictures_are_turned_upright_as_exif_says(tmp_path, halves, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_picture(tmp_path / "a.png", 16), upright(np.asarray(halves)))


def test_a_wide_picture_is_cropped_to_its_middle(tmp_path, halves):
    wide = Image.new("RGB", (48, 16), (0, 255, 0))
    wide.paste(halves, (16, 0))
    wide.save(tmp_path / "a.png")
    assert np.array_equal(load_picture(tmp_path / "a.png", 16), np.asarray(halves))
    assert load_pictures([tmp_path / "a.png"] * 3, 8).shape == (3, 8, 8, 3)


def test_transparency_is_white_not_what_lies_beneath(tmp_path):
    glass = Image.new("RGBA", (8, 8), (*RED, 0))
    glass.save(tmp_path / "a.png")
    assert (load_picture(tmp_path / "a.png", 8) == 255).all()
    glass.quantize(2).save(tmp_path / "palette.png", transparency=0)
    assert (load_picture(tmp_path / "palette.png", 8) == 255).all()


def test_sixteen_bits_keep_their_brightness(tmp_path):
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert (load_picture(tmp_path / "deep.png", 8) == 100).all()


def test_an_animation_shows_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (load_picture(tmp_path / "moving.gif", 8) == RED).all()


def test_hashes_are_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    records = pd.DataFrame({"path": ["a", "lost"]})
    # FIPS 180-4's example.
    assert hash_pictures(records, tmp_path).tolist() == [
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        None,
    ]


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(UserError, match=r"lost\.png is missing"):
        load_picture(tmp_path / "lost.png", 8)


def test_broken_pictures_are_set_aside_with_their_reason(tmp_path, halves):
    for name in "abcd":
        halves.save(tmp_path / f"{name}.png")
    truncated(tmp_path / "b.png")
    (tmp_path / "d.png").write_text("not a picture")
    records = pd.DataFrame({"id": list("abcd"), "path": [f"{name}.png" for name in "abcd"]})
    records["sha256"] = hash_pictures(records, tmp_path)
    kept, quarantine = examine_pictures(records, tmp_path, worst=0.5)
    assert kept["id"].tolist() == ["a", "c"]
    assert kept.index.tolist() == [0, 1]
    assert kept["width"].tolist() == kept["height"].tolist() == [16, 16]
    assert kept["duplicate_of"].isna().tolist() == [True, False]
    assert kept["duplicate_of"][1] == "a"
    assert quarantine["id"].tolist() == ["b", "d"]
    assert [name in reason for name, reason in zip(quarantine["path"], quarantine["reason"], strict=True)] == [True] * 2
    with pytest.raises(UserError, match=r"2 of 4 pictures are broken.*max_broken_share=0\.49.*b\.png"):
        examine_pictures(records, tmp_path, worst=0.49)


def test_threads_answer_in_turn_however_many_items_there_are():
    items = pd.Series(range(10_000))
    assert list(map_by_threads(lambda i: i + 1, items)) == list(range(1, 10_001))
