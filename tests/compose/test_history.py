"""A board on the disk: what is kept, what it is called, and what cannot be reached through it."""

import json
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from partcraft_kedro.compose.history import History
from partcraft_kedro.compose.studio import Made, Seen
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.recipes import Recipe, read_recipe
from partcraft_kedro.options import SamplingOptions

BOARD = "0123456789abcdef"
NAMES = ["background", "upper", "lower"]


def made(prompt: str = "a photo of a [1,2] [2,0]", seed: int = 0, noise: str = "0", **sampling) -> Made:
    recipe = Recipe(prompt=prompt, seed=seed, noise=noise, sampling=SamplingOptions(**sampling), adapter="a" * 16)
    seen = Seen(np.array([[0, 1], [2, 2]], np.uint8), [0, 2, None], [0.9, 0.8, 0.0])
    return Made(Image.new("RGB", (8, 8), "red"), recipe, seen, {1: np.array([[0.0, 0.1], [0.2, 0.05]], np.float32)})


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path, BOARD, NAMES)


def test_what_is_kept_is_there_for_another_process(history: History, tmp_path: Path) -> None:
    first = history.add([made(), made(noise="1")], None)
    second = history.add([made()], first["id"])
    assert History(tmp_path, BOARD, NAMES).makings() == json.loads(json.dumps([first, second]))
    assert read_recipe(history.picture(first["id"], 1)).noise == "1"
    [picture, _] = first["pictures"]
    assert (picture["before"], picture["code"], picture["after"]) == ("a photo of a", [None, 2, 0], "")
    assert picture["arrived"] == {"1": True, "2": False}
    assert list(b64decode(picture["label_map"]["bytes"])) == [0, 1, 2, 2]
    assert list(b64decode(picture["attention"]["1"]["bytes"])) == [0, 127, 255, 63]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (made("a photo of a [1,3] [2,0]"), "upper"),
        (made("a photo of a [0,1] [1,2]"), "background, lower"),
        (made(seed=1), "new noise"),
        (made(steps=9), "9 steps"),
        (made("a photo of a [1,2] [2,0], on sand", guidance_scale=2), "words, guidance"),
        (made(), "again"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_changed_is_said(history: History, after: Made, words: str) -> None:
    start = history.add([made()], None)
    assert start["change"] == "start"
    assert history.add([after], start["id"])["change"] == words


def test_a_star_stays(history: History) -> None:
    making = history.add([made(), made(noise="1")], None)
    history.star(making["id"], 1, True)
    assert [picture["starred"] for picture in history.makings()[0]["pictures"]] == [False, True]
    history.star(making["id"], 1, False)
    assert history.makings() == json.loads(json.dumps([making]))


def test_what_was_made_from_the_deleted_hangs_on_its_parent(history: History) -> None:
    ids = [None]
    for _ in range(3):
        ids.append(history.add([made()], ids[-1])["id"])
    history.delete(ids[2])
    assert [(making["id"], making["parent"]) for making in history.makings()] == [(ids[1], None), (ids[3], ids[1])]
    assert history.add([made()], ids[2])["parent"] is None  # another window did not know


def test_a_damaged_making_takes_no_other_with_it_and_can_be_deleted(history: History, tmp_path: Path) -> None:
    first, second = history.add([made()], None), history.add([made()], None)
    (tmp_path / BOARD / first["id"] / "making.json").write_text("{")
    assert [found["id"] for found in history.makings()] == [second["id"]]
    (tmp_path / BOARD / second["id"] / "0.png").unlink()
    history.delete(second["id"])
    assert history.makings() == []
    with pytest.raises(UserError, match="no such picture"):
        history.delete(second["id"])


def test_stars_of_several_windows_at_once_are_all_kept(history: History, tmp_path: Path) -> None:
    making = history.add([made(noise=str(number)) for number in range(8)], None)
    with ThreadPoolExecutor(8) as pool:
        boards = [History(tmp_path, BOARD, NAMES) for _ in range(8)]
        list(pool.map(lambda number: boards[number].star(making["id"], number, True), range(8)))
    assert all(picture["starred"] for picture in history.makings()[0]["pictures"])


def test_what_a_killed_process_left_is_no_making(history: History, tmp_path: Path) -> None:
    making = history.add([made()], None)
    folder = tmp_path / BOARD
    (folder / f".{making['id']}.partial").mkdir()
    (folder / f".{making['id']}.partial/making.json").write_text("{")
    (folder / "notes").mkdir()
    assert [found["id"] for found in history.makings()] == [making["id"]]


@pytest.mark.parametrize(
    "board", ["..", "../0123456789abcdef", "short", "0123456789ABCDEF", "a" * 41, "", "a" * 16 + "\n"]
)
def test_no_board_lies_elsewhere(tmp_path: Path, board: str) -> None:
    with pytest.raises(UserError, match="no such board"):
        History(tmp_path, board, NAMES)


@pytest.mark.parametrize("id", ["..", "../../etc", "", "20260101T000000000000-00000000", "*"])
def test_no_picture_lies_elsewhere(history: History, tmp_path: Path, id: str) -> None:
    history.add([made()], None)
    (tmp_path / "0.png").write_bytes(b"secret")
    (tmp_path / "making.json").write_text("{}")
    for ask in (lambda: history.picture(id, 0), lambda: history.star(id, 0, True), lambda: history.delete(id)):
        with pytest.raises(UserError, match="no such picture"):
            ask()
    assert history.add([made()], id)["parent"] is None
