"""Malformed and odd inputs as people have them: each gives a right result, or one sentence, and nothing is lost.

63 pictures, 50 folders and names in them, 18 tables of labels, 14 files of parts' names, 19 counts at their edges, 10
tests of damaged files, and on the command line 25 options and 5 sources of pictures: 204 in all.
tests/images/test_malformed_pictures.py has fifty more pictures.
"""

import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.figures import scores_figure
from partcraft_kedro.evaluation.scores import random_others
from partcraft_kedro.images.contact_sheet import contact_sheet_figure
from partcraft_kedro.images.decoding import load_picture, load_pictures
from partcraft_kedro.images.readers import read_folder, read_sims4
from partcraft_kedro.images.records import examine_pictures, hash_pictures
from partcraft_kedro.options import GROUPS
from partcraft_kedro.parts.discovery import fit_part_predictor
from partcraft_kedro.parts.names import read_names
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.pipelines.features.nodes import extract_features
from partcraft_kedro.pipelines.generate.nodes import plan_pictures
from partcraft_kedro.pipelines.images import nodes as images_nodes
from partcraft_kedro.pipelines.parts import nodes as parts_nodes
from partcraft_kedro.stages import Stages

PROJECT = Path(__file__).parents[1]
COLOUR, GREY = (200, 120, 40), 120
SAMPLING = {"steps": 2, "scheduler": "model", "guidance_scale": 2, "guidance_rescale": 0}
SAMPLING |= {"negative_prompt": "", "batch_size": 4}


def told(error: pytest.ExceptionInfo) -> str:
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


# --- Pictures


def encoded(kind: str, picture: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (picture or Image.new("RGB", (40, 24), COLOUR)).save(buffer, kind, **options)
    return buffer.getvalue()


def noisy(kind: str) -> bytes:
    """A picture that cannot be cut short without losing some of it."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(kind, Image.fromarray(noise))


def frames(kind: str, **options) -> bytes:
    others = [Image.new("RGB", (40, 24), colour) for colour in ("blue", "red")]
    return encoded(kind, save_all=True, append_images=others, **options)


def grey(mode: str, value: float) -> Image.Image:
    types = {"L": np.uint8, "I;16": np.uint16, "I": np.int32, "F": np.float32}
    return Image.fromarray(np.full((24, 40), value, types[mode]))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded("JPEG", exif=exif, quality=95)


def with_exif(content: bytes) -> bytes:
    """A JPEG whose EXIF is any bytes at all."""
    picture = encoded("JPEG", quality=95)
    return picture[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content + picture[2:]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def see_through() -> Image.Image:
    """Half of it transparent, its colour beneath."""
    picture = Image.new("RGBA", (40, 24), (*COLOUR, 255))
    picture.paste((0, 0, 0, 0), (20, 0, 40, 24))
    return picture


def halves(kind: str, mode: str) -> bytes:
    return encoded(kind, see_through().convert(mode) if mode != "P" else see_through().quantize(8))


WHOLE: dict[str, tuple[bytes, int | tuple[int, int, int]]] = {
    "jpeg.png": (encoded("JPEG", quality=95), COLOUR),
    "png.jpg": (encoded("PNG"), COLOUR),
    "no_jpeg.JPG": (encoded("WEBP", lossless=True), COLOUR),
    "grey.jpg": (encoded("JPEG", grey("L", GREY)), GREY),
    "progressive.jpg": (encoded("JPEG", progressive=True, quality=95), COLOUR),
    "ink.jpg": (encoded("JPEG", Image.new("RGB", (40, 24), COLOUR).convert("CMYK"), quality=95), COLOUR),
    "ink.tif": (encoded("TIFF", Image.new("RGB", (40, 24), COLOUR).convert("CMYK")), COLOUR),
    "bits.png": (encoded("PNG", Image.new("1", (40, 24), 1)), 255),
    "deep.png": (encoded("PNG", grey("I;16", 257 * GREY)), GREY),
    "deep.tif": (encoded("TIFF", grey("I;16", 257 * GREY)), GREY),
    "deep.pgm": (b"P5 40 24 65535\n" + struct.pack(">H", 257 * GREY) * 40 * 24, GREY),
    "deeper.tif": (encoded("TIFF", grey("I", 2**20)), 255),
    "negative.tif": (encoded("TIFF", grey("I", -5)), 0),
    "floats.tif": (encoded("TIFF", grey("F", GREY / 255 + 1e-3)), GREY),
    "not_numbers.tif": (encoded("TIFF", grey("F", np.nan)), 0),
    "palette.png": (encoded("PNG", Image.new("RGB", (40, 24), COLOUR).quantize(4)), COLOUR),
    "moving.gif": (frames("GIF"), COLOUR),
    "moving.webp": (frames("WEBP", lossless=True), COLOUR),
    "moving.png": (frames("PNG"), COLOUR),
    "pages.tiff": (frames("TIFF"), COLOUR),
    "two_lenses.mpo": (frames("MPO", quality=95), COLOUR),
    "two_lenses.jpg": (frames("MPO", quality=95), COLOUR),
    "upright.jpg": (turned(1), COLOUR),
    "orientation_0.jpg": (turned(0), COLOUR),
    "orientation_99.jpg": (turned(99), COLOUR),
    "exif_empty.jpg": (with_exif(b""), COLOUR),
    "exif_noise.jpg": (with_exif(bytes(range(256))), COLOUR),
    "exif_cut_short.jpg": (with_exif(b"MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03"), COLOUR),
    "exif_far_away.jpg": (with_exif(b"II*\0\xff\xff\xff\x7f"), COLOUR),
    "colours_of_no_kind.png": (encoded("PNG", icc_profile=b"no profile"), COLOUR),
    "more_after_it.png": (encoded("PNG") + b"more" * 100, COLOUR),
    "one_pixel.png": (encoded("PNG", Image.new("RGB", (1, 1), COLOUR)), COLOUR),
    "tall.png": (encoded("PNG", Image.new("RGB", (1, 3000), COLOUR)), COLOUR),
    "wide.png": (encoded("PNG", Image.new("RGB", (3000, 1), COLOUR)), COLOUR),
    "new.avif": (encoded("AVIF", quality=100), COLOUR),
    "film.jp2": (encoded("JPEG2000"), COLOUR),
    "old.bmp": (encoded("BMP"), COLOUR),
    "old.tga": (encoded("TGA"), COLOUR),
    "quite_ok.qoi": (encoded("QOI"), COLOUR),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_picture_looks_as_it_should(tmp_path, name: str) -> None:
    content, colour = WHOLE[name]
    (tmp_path / name).write_bytes(content)
    assert len(read_folder(tmp_path, test_fraction=0, seed=0)) == 1
    assert np.abs(load_picture(tmp_path / name, 8).astype(int) - colour).max() <= 4


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("WEBP", "RGBA")])
def test_what_is_transparent_is_white(tmp_path, kind: str, mode: str) -> None:
    (tmp_path / "a.png").write_bytes(halves(kind, mode))
    left, right = load_picture(tmp_path / "a.png", 24)[12, [4, 20]].astype(int)
    brightness = np.array(Image.new("RGB", (1, 1), COLOUR).convert("L").getpixel((0, 0)))
    assert np.abs(left - (brightness if mode == "LA" else COLOUR)).max() <= 12
    assert (right == 255).all()


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing.jpg": (b"", "cannot be decoded"),
    "a_page.jpg": (b"<!DOCTYPE html>\n<title>Not\nFound</title>", "cannot be decoded"),
    "a_drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "cannot be decoded"),
    "an_archive.png": (b"PK\x03\x04" + bytes(100), "cannot be decoded"),
    "a_document.jpg": (b"%PDF-1.7\n", "cannot be decoded"),
    **{
        f"half.{kind.lower()}": (noisy(kind)[: len(noisy(kind)) // 2], "cannot be decoded")
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")
    },
    "no_pixels.png": (png(9, 9), "cannot be decoded"),
    "no_width.png": (png(0, 9), "cannot be decoded"),
    "wrong_sum.png": (noisy("PNG")[:40] + b"\0" + noisy("PNG")[41:], "cannot be decoded"),
    "bomb.png": (png(100_000, 100_000), "cannot be decoded"),
    "huge.png": (png(20_000, 10_000), "of 200 megapixels, and only JPEG may have more than 180"),
    "iphone.heic": (b"\0\0\0\x18ftypheic" + bytes(500), "is in HEIC.*convert it to JPEG"),
    "sent_by_iphone.jpg": (b"\0\0\0\x18ftypheic" + bytes(500), "is in HEIC.*convert it to JPEG"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named_with_what_is_wrong(tmp_path, name: str) -> None:
    content, complaint = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint) as error:
        load_picture(tmp_path / name, 8)
    assert name in told(error)


def test_a_phone_s_200_megapixels_are_decoded_smaller(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (16320, 12240), GREY).save(tmp_path / "a.jpg", exif=exif)
    records = read_folder(tmp_path, test_fraction=0, seed=0).assign(sha256="")
    kept, _ = examine_pictures(records, tmp_path, worst=0.01)
    assert kept[["width", "height"]].to_numpy().tolist() == [[12240, 16320]]
    assert np.abs(load_picture(tmp_path / "a.jpg", 8).astype(int) - GREY).max() <= 2


# --- Folders


def picture(path: Path, colour: tuple[int, int, int] = COLOUR) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded("PNG", Image.new("RGB", (8, 8), colour)))


def found(folder: Path) -> dict[str, str]:
    """Ids and classes, as they come back from a table on disk."""
    records = read_folder(folder, test_fraction=0, seed=0)
    records.to_parquet(folder.parent / "records.parquet")
    stored = pd.read_parquet(folder.parent / "records.parquet")
    return dict(zip(stored["id"], stored["class_name"], strict=True))


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "#recycle", "lost+found", ".thumbnails"),
        *("bird/@eaDir", "bird/a.png@SynoResource/@eaDir"),
    ],
)
def test_a_system_s_folder_is_left_out(tmp_path, name: str) -> None:
    folder = tmp_path / "pictures"
    picture(folder / "bird" / "a.png")
    picture(folder / name / "thumbnail.png")
    assert found(folder) == {"bird/a.png": "bird"}


@pytest.mark.parametrize(
    "name",
    [
        *("features.h5", "Thumbs.db", ".DS_Store", "._a.png", "notes.txt", "film.mp4", "film.mpg", "paper.pdf"),
        *("raw.cr2", "drawing.eps", "drawing.svg", "numbers.fits", "numbers.grib", "icon.icns", "a.png.part", "png"),
    ],
)
def test_no_picture_by_its_name_is_left_out(tmp_path, name: str) -> None:
    folder = tmp_path / "pictures"
    picture(folder / "a.png")
    (folder / name).write_bytes(b"something")
    assert found(folder) == {"a.png": "pictures"}


@pytest.mark.parametrize(
    "name",
    [
        *("a b.png", "100%.png", "what?#.png", "$1_{x}.png", "<b>&.png", "two\nlines.png", "-rf.png", "[a,b].png"),
        *("شجرة.png", "木.png", "🐦.png", "e\u0301.png", f"{'x' * 200}.PNG"),
    ],
)
def test_any_name_is_a_name(tmp_path, name: str) -> None:
    folder = tmp_path / "pictures"
    picture(folder / name / name)  # a folder may be called x.png
    assert found(folder) == {f"{name}/{name}": name}
    assert load_pictures([folder / name / name], 8).shape == (1, 8, 8, 3)


def linked(folder: Path) -> None:
    picture(folder.parent / "elsewhere" / "a.png")
    (folder / "bird").symlink_to(folder.parent / "elsewhere", target_is_directory=True)


def linked_file(folder: Path) -> None:
    picture(folder.parent / "elsewhere" / "a.png")
    (folder / "bird").mkdir()
    (folder / "bird" / "a.png").symlink_to(folder.parent / "elsewhere" / "a.png")


def in_circles(folder: Path) -> None:
    picture(folder / "bird" / "a.png")
    for name in "xyz":
        for within in (folder, folder / "bird"):
            (within / name).symlink_to(folder, target_is_directory=True)


def to_itself(folder: Path) -> None:
    picture(folder / "bird" / "a.png")
    (folder / "loop").symlink_to(folder / "loop")


def by_two_ways(folder: Path) -> None:
    picture(folder / "bird" / "a.png")
    (folder / "a link to it").symlink_to(folder / "bird", target_is_directory=True)


def beside_a_pipe(folder: Path) -> None:
    picture(folder / "bird" / "a.png")
    os.mkfifo(folder / "bird" / "b.png")


@pytest.mark.parametrize("make", [linked, linked_file, in_circles, to_itself, by_two_ways, beside_a_pipe])
def test_links_are_followed_once_and_pipes_not_waited_for(tmp_path, make: Callable) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    assert found(folder) == {"bird/a.png": "bird"}


def of_bytes(folder: Path) -> None:
    picture(folder / os.fsdecode(b"caf\xe9.png"))


def within_bytes(folder: Path) -> None:
    picture(folder / os.fsdecode(b"caf\xe9") / "a.png")


@pytest.mark.parametrize("make", [of_bytes, within_bytes])
def test_a_name_that_is_no_text_is_told(tmp_path, make: Callable) -> None:
    try:
        make(tmp_path)
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(UserError, match=r"caf\\xe9.*is not UTF-8.*rename") as error:
        read_folder(tmp_path, test_fraction=0, seed=0)
    told(error)


@pytest.mark.parametrize("broken", [1, 5])
def test_a_small_folder_may_lose_a_few(tmp_path, broken: int) -> None:
    for i in range(12):
        picture(tmp_path / f"{i:02d}.png")
    for i in range(broken):
        (tmp_path / f"{i:02d}.png").write_bytes(b"broken")
    records = read_folder(tmp_path, test_fraction=0, seed=0)
    records["sha256"] = hash_pictures(records, tmp_path)
    kept, quarantine = examine_pictures(records, tmp_path, worst=0.01)
    assert len(kept) == 12 - broken and len(quarantine) == broken
    with pytest.raises(UserError, match=rf"{broken} of 12 pictures are broken, more than .*max_broken_share=0 "):
        examine_pictures(records, tmp_path, worst=0)
    (tmp_path / "11.png").unlink()
    if broken == 5:
        with pytest.raises(UserError, match="6 of 12 pictures are broken"):
            examine_pictures(records, tmp_path, worst=0.01)


def test_when_no_picture_is_whole_the_run_stops_whatever_the_share(tmp_path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b.heic").write_bytes(b"HEIC")
    records = read_folder(tmp_path, test_fraction=0, seed=0).assign(sha256="")
    with pytest.raises(UserError, match=r"2 of 2 pictures are broken; the first: Picture .*a\.png is missing"):
        examine_pictures(records, tmp_path, worst=1)


def test_a_contact_sheet_shows_every_name_as_it_is(tmp_path) -> None:
    names = ["$x$", r"$\frac{", "a_$1_$2^", "<b>&amp;", "שלום", "x" * 99, "two\nlines", "%s", "{}"]
    rows = []
    for i, name in enumerate(names):
        picture(tmp_path / f"{i}.png")
        rows.append({"path": f"{i}.png", "class_name": name, "split": "train", "duplicate_of": None})
    quarantine = pd.DataFrame({"reason": [r"Picture /$a$/$\x{.png cannot be decoded.", f"Picture /{'y' * 300}."]})
    figure = contact_sheet_figure(pd.DataFrame(rows), quarantine, tmp_path)
    figure.savefig(tmp_path / "sheet.png")
    totals, *shown = [text.get_text() for text in figure.texts]
    assert totals.startswith("9 pictures of 9 classes") and len(figure.axes) == len(names)
    assert shown[:2] == names[:2] and shown[3] == names[3] and shown[5] == "x" * 23 + "…" and shown[6] == "two lines"
    assert shown[-2].startswith("Picture /yyy") and shown[-1].startswith("Picture /$a$")


# --- Tables of labels


LABELS: dict[str, tuple[bytes, dict[str, str] | str]] = {
    "plain": (b"file,class\na.png,man\nb.png,woman\n", {"a.png": "man", "b.png": "woman"}),
    "with a mark of its encoding": (
        b"\xef\xbb\xbffile,class\r\na.png,man\r\nb.png,man\r\n",
        {"a.png": "man", "b.png": "man"},
    ),
    "with blanks": (b"file, class\na.png, man\nb.png, man\n", {"a.png": "man", "b.png": "man"}),
    "with more columns": (b"x,class,file\n1,man,a.png\n2,man,b.png\n", {"a.png": "man", "b.png": "man"}),
    "a class called NA": (b"file,class\na.png,NA\nb.png,None\n", {"a.png": "NA", "b.png": "None"}),
    "quoted": (b'file,class\n"a.png","man, old"\n./b.png,"man, old"\n', {"a.png": "man, old", "b.png": "man, old"}),
    "empty": (b"", "needs the columns"),
    "of a spreadsheet": (b"PK\x03\x04" + bytes(range(256)), "cannot be read as CSV"),
    "with a longer row": (b"file,class\na.png,man, old\nb.png,man\n", "row 1, should have 2 values"),
    "in another encoding": ("file,class\na.png,Señor\n".encode("latin1"), "cannot be read as CSV"),
    "with semicolons": (b"file;class\na.png;man\n", "needs the columns"),
    "without rows": (b"file,class\n", "lists no picture"),
    "without a class": (b"file,class\na.png,man\nb.png,\n", "row 2, should have 2 values"),
    "without a file": (b"file,class\n,man\n", "row 1, should have 2 values"),
    "with a short row": (b"file,class\na.png\n", "row 1, should have 2 values"),
    "outside": (b"file,class\n../a.png,man\n", "outside of the dataset"),
    "absolute": (b"file,class\n/a.png,man\n", "outside of the dataset"),
    "twice": (b"file,class\na.png,man\n./a.png,woman\n", "lists 'a.png' twice"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_table_of_labels(tmp_path, name: str) -> None:
    content, expected = LABELS[name]
    for file in ("a.png", "b.png"):
        picture(tmp_path / file)
    (tmp_path / "labels.csv").write_bytes(content)
    settings = {"labels": tmp_path / "labels.csv", "pictures_per_class": 1, "test_fraction": 0, "seed": 0}
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected) as error:
            read_sims4(tmp_path, **settings)
        assert "labels.csv" in told(error)
    else:
        settings["pictures_per_class"] = 2 if len(set(expected.values())) == 1 else 1
        records = read_sims4(tmp_path, **settings)
        assert dict(zip(records["id"], records["class_name"], strict=True)) == expected


# --- Names of parts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"1: beak\n", {1: "beak"}),
        ("2: l'aile gauche\n1: крыло\n".encode(), {1: "крыло", 2: "l'aile gauche"}),
        (b"0: sky\n", {0: "sky"}),
        (b"- beak\n", "should have lines such as"),
        (b"null\n", "should have lines such as"),
        (b"yes: beak\n", "names part True"),
        (b"1.0: beak\n", r"names part 1\.0"),
        (b"-1: beak\n", "names part -1"),
        (b"1: yes\n", "calls part 1 True"),
        (b"1: [beak]\n", "calls part 1"),
        (b"1: $x$\n", "calls part 1"),
        (b"1: " + b"x" * 41, "calls part 1"),
        (b"[" * 1000, "cannot be read"),
        (b"1: \x00", "cannot be read"),
    ],
)
def test_a_file_of_names(tmp_path, content: bytes, expected: dict | str) -> None:
    path = tmp_path / "names.yml"
    path.write_bytes(content)
    if isinstance(expected, dict):
        assert read_names(path, 3) == expected
    else:
        with pytest.raises(UserError, match=expected) as error:
            read_names(path, 3)
        assert "names.yml" in told(error)


# --- Counts at their edges


def options_of(name: str, **values) -> dict:
    """A group of options as --env=test has it, with some changed."""
    environments = [yaml.safe_load((PROJECT / "conf" / env / "parameters.yml").read_text()) for env in ("base", "test")]
    return GROUPS[name](**environments[0][name] | environments[1].get(name, {}) | values)


def prompts(count: int, labels: int) -> pd.DataFrame:
    codes = np.arange(count * labels).reshape(count, labels)
    return pd.DataFrame({"id": [f"{i}" for i in range(count)], "split": "test", "code": list(codes)})


def part_names(labels: int) -> dict[int, str]:
    return {0: "background"} | {part: f"part {part}" for part in range(1, labels)}


@pytest.mark.parametrize(
    ("pictures", "labels", "most"), [(1, 6, 1), (2, 6, 2), (4, 6, 4), (9, 6, 4), (9, 2, 2), (9, 3, 3), (1, 2, 1)]
)
def test_compositions_take_the_sources_that_are_there(caplog, pictures: int, labels: int, most: int) -> None:
    options = options_of("generate", sampling=SAMPLING, reconstructions=100, compositions=3)
    plan = plan_pictures(prompts(pictures, labels), part_names(labels), options)
    assert (plan["kind"] == "reconstruction").sum() == pictures
    composed = plan[plan["kind"] == "composition"]
    assert composed["sources"].map(len).value_counts().to_dict() == dict.fromkeys(range(1, most + 1), 3)
    assert all(len(row.swapped) == len(row.sources) - 1 < labels for row in composed.itertuples())
    assert ("generate.max_sources=4" in caplog.text) == (most < 4)


def test_no_picture_of_the_split_is_told() -> None:
    with pytest.raises(UserError, match=r"generate\.split='train' has no pictures") as error:
        plan_pictures(prompts(3, 6), part_names(6), options_of("generate", sampling=SAMPLING, split="train"))
    told(error)


@pytest.mark.parametrize(("pictures", "made"), [(1, 0), (2, 8), (9, 8)])
def test_transfers_need_two_pictures(pictures: int, made: int) -> None:
    options = options_of("generate", sampling=SAMPLING, transfers=2, transferred=("part 1", "background"))
    plan = plan_pictures(prompts(pictures, 3), part_names(3), options)
    assert (plan["kind"] == "transfer").sum() == made


def test_a_transferred_part_that_is_none_is_told() -> None:
    options = options_of("generate", sampling=SAMPLING, transfers=2, transferred=("part 1", "nose"))
    with pytest.raises(
        UserError, match=r"generate\.transferred='nose' is no part: .*background, part 1, part 2"
    ) as error:
        plan_pictures(prompts(3, 3), part_names(3), options)
    told(error)


@pytest.mark.parametrize(("parts", "variants"), [(1, 1), (3, 50), (254, 2)])
@pytest.mark.parametrize("discovery", ["plain", "centred", "trimmed", "whitened", "published"])
def test_parts_of_one_picture(discovery: str, parts: int, variants: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 16, 5)
    settings = {
        "n_init": 1,
        "max_iter": 3,
        "merge": True,
        "min_patches": 1,
        "min_pictures": 1,
        "seed": 0,
        "extractor": {},
    }
    settings["changes"] = torch.eye(5) if discovery == "whitened" else None
    predictor = fit_part_predictor([features], discovery=discovery, parts=parts, variants=variants, **settings)
    assert 1 <= predictor.part_count <= min(parts, 16)
    codes, _ = predictor.codes_of(features, predictor.label_maps(features))
    assert codes.shape == (1, predictor.part_count + 1)


def test_where_all_pictures_are_sources_there_is_no_floor() -> None:
    plan = pd.DataFrame({"id": ["all", "one"], "sources": [["a", "b"], ["a"]]})
    assert random_others(plan, pd.DataFrame(index=["a", "b"]), 0) == [None, "b"]


def test_no_score_at_all_is_a_figure_that_says_so(tmp_path) -> None:
    figure = scores_figure(pd.DataFrame(columns=["task", "measure", "value", "low", "high", "ceiling", "floor"]))
    assert "No picture could be scored" in figure.texts[0].get_text()


# --- Damaged files of finished stages


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Images, features and parts of six pictures; a function that does it all again, taking what is there."""
    folder = tmp_path_factory.mktemp("chain")
    picture = {"classes": 6, "pictures_per_class": 1, "test_fraction": 0, "seed": 0}
    draw_dataset("creatures", folder / "drawn", folder, **picture)
    images = options_of("images", source="folder", folder=folder / "drawn" / "images")
    features, parts = options_of("features"), options_of("parts")
    stages, base = Stages(folder / "data", "test"), options_of("base", device="cpu")

    def run() -> dict:
        records, _ = images_nodes.check_pictures(images_nodes.read_pictures(images, stages), images, stages)
        extracted = extract_features(records, features, base, GROUPS["compute"](), stages)
        predictor = parts_nodes.discover_parts(extracted, records, parts, base, GROUPS["compute"](), stages)
        masks, codes = parts_nodes.label_pictures(predictor, extracted, records, stages)
        PartPredictor.load(predictor)
        return parts_nodes.score_discovery(records, masks, codes, stages)

    return folder / "data", run, run()


@pytest.mark.parametrize(
    ("pattern", "remade"),
    [
        ("02_intermediate/*/checked-*/records.parquet", True),
        ("02_intermediate/*/checked-*/quarantine.parquet", True),
        ("02_intermediate/*/checked-*/stage.json", False),
        ("04_feature/*/features-*/finished.json", True),
        ("04_feature/*/features-*/stage.json", False),
        ("05_model_input/*/discovery-*/part_predictor/centroids.safetensors", True),
        ("05_model_input/*/discovery-*/part_predictor/part_predictor.json", True),
        ("05_model_input/*/labels-*/codes.parquet", True),
        ("05_model_input/*/labels-*/part_masks/masks.safetensors", True),
    ],
)
def test_a_damaged_file_is_named_and_made_again(chain, pattern: str, remade: bool) -> None:
    data, run, expected = chain
    (path,) = data.glob(pattern)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if not remade:  # nothing reads it again
        assert run() == expected
        path.write_bytes(whole)
        return
    with pytest.raises(UserError) as error:
        run()
    sentence = told(error)
    assert str(path.parent) in sentence
    stage = next(folder for folder in path.parents if (folder / "stage.json").exists())
    shutil.rmtree(stage)
    assert run() == expected


# --- Options and files on the command line


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """`kedro` within this process, with a data folder of its own."""
    from kedro.framework.startup import bootstrap_project

    folder = tmp_path_factory.mktemp("command")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARTCRAFT_DATA", str(folder / "data"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("PARTCRAFT_ARTIFACTS", f"file://{folder}/mlartifacts")
        bootstrap_project(PROJECT)
        from partcraft_kedro.cli import cli

        yield folder, lambda *arguments: CliRunner().invoke(cli, ["run", "--env=test", *arguments])


def one_sentence(result) -> str:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


@pytest.mark.parametrize(
    "option",
    [
        *("images.source=nothing", "images.classes=0", "images.classes=many", "images.classes=1.5", "images.classes="),
        *("images.test_fraction=1.1", "images.test_fraction=nan", "images.max_broken_share=-0.1", "images.seed=-1"),
        *("images.seed=1e400", "images=3", "parts.parts=0", "parts.parts=255", "parts.variants=-3", "parts.seed=one"),
        *("parts.discovery=centered", "generate.max_sources=0", "generate.max_sources=5", "generate.compositions=-1"),
        *("generate.reconstructions=0", "generate.split=validation", "generate.sampling=5", "train.rank=0"),
        *("train.learning_rate=nan", "evaluate.examples=0"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(command, option: str) -> None:
    folder, run = command
    sentence = one_sentence(run("--params", option))
    group, _, name = option.partition("=")[0].partition(".")
    assert group in sentence and name in sentence
    assert not list((folder / "data").glob("04_feature/*"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("images.source=faces", r"images\.classes=4 is more than faces have: give images\.classes=2"),
        ("images.test_fraction=1", "None of 24 whole pictures is there to learn from"),
        ("images.source=folder,images.folder={folder}/empty", "holds no pictures"),
        ("images.source=folder,images.folder={folder}/heic", "3 of 3 pictures are broken; .* is in HEIC"),
        ("images.source=dogs,images.folder={folder}/dogs", "Images cannot be read"),
        ("images.source=sims4,images.folder={folder},images.labels={folder}", "cannot be read as CSV"),
    ],
)
def test_pictures_that_cannot_be_taken_are_told(command, options: str, complaint: str) -> None:
    folder, run = command
    for name in ("empty", "heic", "dogs"):
        (folder / name).mkdir(exist_ok=True)
    for name in "abc":
        (folder / "heic" / f"{name}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("Images", "train_list.mat", "test_list.mat"):
        (folder / "dogs" / name).write_bytes(b"no folder")
    sentence = one_sentence(run("--pipelines=images", "--params", options.format(folder=folder)))
    assert re.search(complaint, sentence)


def test_a_damaged_table_of_the_catalog_is_told_and_made_again(command) -> None:
    folder, run = command
    assert run("--pipelines=images").exit_code == 0
    tables = {folder / "data" / "02_intermediate" / "test" / f"{name}.parquet" for name in ("records", "quarantine")}
    for table in tables:
        whole = table.read_bytes()
        table.write_bytes(whole[: len(whole) // 2])
        assert table.name in one_sentence(run("--nodes=draw_contact_sheet"))
        assert run("--nodes=check_pictures").exit_code == 0
        assert table.read_bytes() == whole
