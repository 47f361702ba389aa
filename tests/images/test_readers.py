"""Readers of published layouts, on small copies of them and on the real ones where they are to be had."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from partcraft_kedro.errors import UserError
from partcraft_kedro.images.readers import read_cub, read_dogs, read_folder, read_sims4

SHARED = Path(__file__).parents[3] / "shared" / "data"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(path)


@pytest.fixture
def cub(tmp_path) -> Path:
    """Two classes, three pictures whose numbers have gaps, two keypoints, one of them hidden once."""
    folder = tmp_path / "CUB_200_2011"
    files = {
        "images.txt": "1 001.Albatross/a.jpg\n3 001.Albatross/b.jpg\n7 002.Ani/c.jpg\n",
        "image_class_labels.txt": "1 1\n3 1\n7 2\n",
        "train_test_split.txt": "1 1\n3 0\n7 1\n",
        "classes.txt": "1 001.Albatross\n2 002.Ani\n",
        "bounding_boxes.txt": "1 1.0 2.0 10.0 5.0\n3 0.0 0.0 20.0 10.0\n7 2.5 2.5 5.0 5.0\n",
        "parts/parts.txt": "1 beak\n2 left eye\n",
        "parts/part_locs.txt": "1 1 3.0 4.0 1\n1 2 0.0 0.0 0\n3 2 5.5 6.5 1\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("001.Albatross/a", "001.Albatross/b", "002.Ani/c"):
        picture(folder / "images" / f"{name}.jpg")
    return folder


@pytest.fixture
def dogs(tmp_path) -> Path:
    folder = tmp_path / "dogs"
    lists = {"train": ["n1-pug/n1_1.jpg", "n2-husky/n2_5.jpg", "n3-absent/n3_1.jpg"], "test": ["n1-pug/n1_2.jpg"]}
    for split, names in lists.items():
        entries = np.empty((len(names), 1), object)
        entries[:, 0] = names
        folder.mkdir(exist_ok=True)
        savemat(folder / f"{split}_list.mat", {"file_list": entries})
    for name in ("n1-pug/n1_1", "n1-pug/n1_2", "n2-husky/n2_5"):
        picture(folder / "Images" / f"{name}.jpg")
    annotation = folder / "Annotation" / "n1-pug" / "n1_1"
    annotation.parent.mkdir(parents=True)
    annotation.write_text(
        "<annotation><object><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9</ymax></bndbox></object>"
        "</annotation>"
    )
    return folder


def test_cub_by_hand(cub) -> None:
    records = read_cub(cub)
    assert list(records["id"]) == ["00001", "00003", "00007"]
    assert list(records["class_name"]) == ["001.Albatross", "001.Albatross", "002.Ani"]
    assert list(records["split"]) == ["train", "test", "train"]
    assert records["box"][2] == [2.5, 2.5, 5.0, 5.0]
    assert records["keypoints"][0] == [{"name": "beak", "x": 3.0, "y": 4.0}]
    assert records["keypoints"][1] == [{"name": "left eye", "x": 5.5, "y": 6.5}]
    assert records["keypoints"][2] == []
    assert all(Path(path).is_absolute() and Path(path).exists() for path in records["path"])


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("images.txt", None, "images.txt is missing"),
        ("parts/part_locs.txt", None, "part_locs.txt is missing"),
        ("images.txt", "", "is empty"),
        ("images.txt", "1 a.jpg\n1 b.jpg\n", "a number twice"),
        ("images.txt", "1 ../../secret.jpg\n", "outside of the dataset"),
        ("bounding_boxes.txt", "1 1 2 3\n", "line 1, should have 5 columns"),
        ("train_test_split.txt", "1 1\n3 0\n", "no line for picture 7"),
        ("image_class_labels.txt", "1 1\n3 1\n7 9\n", "names class 9"),
        ("parts/part_locs.txt", "1 8 3.0 4.0 1\n", "names part 8"),
        ("classes.txt", b"\xff\xfe\x00\x81", "not a text file"),
    ],
)
def test_a_malformed_cub_is_told_in_one_sentence(cub, file: str, content: str | bytes | None, told: str) -> None:
    if content is None:
        (cub / file).unlink()
    elif isinstance(content, bytes):
        (cub / file).write_bytes(content)
    else:
        (cub / file).write_text(content)
    with pytest.raises(UserError, match=told):
        read_cub(cub)


def test_dogs_by_hand(dogs) -> None:
    records = read_dogs(dogs)
    assert list(records["id"]) == ["n1-pug/n1_1", "n2-husky/n2_5", "n1-pug/n1_2"]
    assert list(records["class_name"]) == ["pug", "husky", "pug"]
    assert list(records["split"]) == ["train", "train", "test"]
    assert records["box"][0] == [2, 3, 10, 6]
    assert records["box"].isna().tolist() == [False, True, True]


def test_a_malformed_dogs_is_told_in_one_sentence(dogs) -> None:
    (dogs / "train_list.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut short")
    with pytest.raises(UserError, match="cannot be read as Stanford Dogs' list"):
        read_dogs(dogs)
    shutil.rmtree(dogs / "Images")
    with pytest.raises(UserError, match="Images is missing"):
        read_dogs(dogs)


def test_sims4_takes_equally_many_of_each(tmp_path) -> None:
    for name, count in (("masc", 6), ("fem", 4)):
        for i in range(count):
            picture(tmp_path / name / "inner" / f"{i}.png")
    settings = {"labels": None, "test_fraction": 0.5, "seed": 0}
    records = read_sims4(tmp_path, pictures_per_class=4, **settings)
    assert records.groupby(["class_name", "split"]).size().to_dict() == {
        (name, split): 2 for name in ("fem", "masc") for split in ("test", "train")
    }
    with pytest.raises(UserError, match="has 4 pictures of 'fem'"):
        read_sims4(tmp_path, pictures_per_class=5, **settings)
    with pytest.raises(UserError, match=r"unpack masc\.tar"):
        read_sims4(tmp_path / "masc", pictures_per_class=1, **settings)


def test_sims4_with_a_table_of_labels(tmp_path) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,class\n0.png,man\n1.png,woman\n2.png,man\n3.png,woman\n")
    settings = {"pictures_per_class": 2, "test_fraction": 0.0, "seed": 0}
    records = read_sims4(tmp_path, labels=table, **settings)
    assert dict(zip(records["id"], records["class_name"], strict=True)) == {
        "0.png": "man",
        "1.png": "woman",
        "2.png": "man",
        "3.png": "woman",
    }
    table.write_text("name,sex\n0.png,man\n")
    with pytest.raises(UserError, match="needs the columns"):
        read_sims4(tmp_path, labels=table, **settings)


def test_a_folder_of_anyones_pictures(tmp_path) -> None:
    for name in ("cats/a.jpg", "cats/deep/b.PNG", "dogs/c.webp", "d.tif", ".hidden.png", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            picture(tmp_path / name)
    records = read_folder(tmp_path, test_fraction=0.5, seed=0)
    classes = dict(zip(records["id"], records["class_name"], strict=True))
    assert classes == {"cats/a.jpg": "cats", "cats/deep/b.PNG": "cats", "dogs/c.webp": "dogs", "d.tif": tmp_path.name}
    assert (records[records["class_name"] == "cats"]["split"] == "test").sum() == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        read_folder(empty, test_fraction=0.5, seed=0)
    with pytest.raises(UserError, match="is not a folder"):
        read_folder(tmp_path / "nowhere", test_fraction=0.5, seed=0)


@pytest.mark.skipif(not SHARED.exists(), reason="no real photographs here")
def test_the_real_datasets() -> None:
    cub = read_cub(SHARED / "CUB_200_2011")
    assert len(cub) == 483
    assert cub["class_name"].nunique() == 10
    assert all(Path(path).exists() for path in cub["path"])
    dogs = read_dogs(SHARED / "stanford_dogs")
    assert len(dogs) == 497
    assert set(dogs["class_name"]) == {"Chihuahua", "Pekinese", "papillon"}
    assert all(Path(path).exists() for path in dogs["path"])
