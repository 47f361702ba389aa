"""Files and folders, whole or not at all, and their fingerprints."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors import SafetensorError

from partcraft_kedro import files
from partcraft_kedro.errors import FullDisk, UserError
from partcraft_kedro.files import digest_of, fingerprint_of, write_file, write_folder


@pytest.fixture
def filled(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights.bin").write_bytes(b"1234")
    return folder


def write_and_fail(path):
    (path / "half" if path.is_dir() else path).write_text("half")
    raise RuntimeError("the writer breaks")


def test_fingerprint_follows_a_file_s_content_and_name(filled):
    weights = filled / "deep" / "weights.bin"
    of_file, of_folder = fingerprint_of(weights), fingerprint_of(filled)
    assert (fingerprint_of(weights), fingerprint_of(filled)) == (of_file, of_folder)
    weights.write_bytes(b"1235")
    assert fingerprint_of(weights) != of_file
    assert fingerprint_of(filled) != of_folder
    weights.write_bytes(b"1234")
    assert fingerprint_of(filled) == of_folder
    weights.rename(filled / "deep" / "other.bin")
    assert fingerprint_of(filled) != of_folder


def test_a_folder_s_fingerprint_is_not_its_name_s(filled):
    before = fingerprint_of(filled)
    assert fingerprint_of(filled.rename(filled.with_name("elsewhere"))) == before


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that is large for this test, last changed long ago for it."""
    monkeypatch.setattr(files, "_LARGE", 4)
    monkeypatch.setattr(files, "_SETTLED", 0)
    path = tmp_path / "weights"
    path.write_bytes(b"1234")
    return path


def test_a_large_file_is_read_once(large, tmp_path, monkeypatch):
    memo, expected = tmp_path / "memo", hashlib.sha256(b"1234").hexdigest()
    assert digest_of(large, memo) == expected
    monkeypatch.setattr(hashlib, "file_digest", None)  # to read it again would be an error
    assert digest_of(large, memo) == expected


def test_a_changed_file_is_read_again_whatever_its_size_and_time_say(large, tmp_path):
    memo = tmp_path / "memo"
    before, times = digest_of(large, memo), large.stat()
    large.write_bytes(b"1235")
    os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest_of(large, memo) == hashlib.sha256(b"1235").hexdigest() != before
    large.unlink()
    large.write_bytes(b"1236")
    assert digest_of(large, memo) == hashlib.sha256(b"1236").hexdigest()


def test_of_a_file_that_may_still_change_and_of_a_broken_memo_nothing_is_believed(large, tmp_path, monkeypatch):
    memo = tmp_path / "memo"
    digest = digest_of(large, memo)
    (known,) = memo.iterdir()
    known.write_text("")
    assert digest_of(large, memo) == known.read_text() == digest
    known.unlink()
    monkeypatch.setattr(files, "_SETTLED", 10**15)
    digest_of(large, memo)
    assert list(memo.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [pd.DataFrame({"a": [1, 3]}), pd.DataFrame({"b": [1, 2]}), pd.DataFrame({"a": [2, 1]})],
    ids=["value", "column", "order"],
)
def test_fingerprint_follows_a_table(other):
    table = pd.DataFrame({"a": [1, 2]})
    assert fingerprint_of(table) == fingerprint_of(table.copy())
    assert fingerprint_of(table) != fingerprint_of(other)


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "table.txt"
    with pytest.raises(RuntimeError):
        write_file(path, write_and_fail)
    assert list(path.parent.iterdir()) == []
    write_file(path, lambda partial: partial.write_text("whole"))
    with pytest.raises(RuntimeError):
        write_file(path, write_and_fail)
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "fill",
    [
        lambda path: path.write_text("text"),
        lambda path: pd.DataFrame({"a": [1]}).to_parquet(path),
        lambda path: Image.new("RGB", (8, 8)).save(path, "PNG"),
    ],
    ids=["text", "parquet", "picture"],
)
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_full_disk_is_told_with_what_could_not_be_written(tmp_path, write, fill):
    def fill_disk(partial):
        file = partial / "file" if partial.is_dir() else partial
        file.symlink_to("/dev/full")
        fill(file)

    with pytest.raises(FullDisk, match=r"^The disk is full, .*weights cannot be written: make space"):
        write(tmp_path / "weights", fill_disk)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_words_for_a_full_disk_are_understood(tmp_path):
    """It puts a file of its own in the place of a device that is always full."""
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(FullDisk, match="weights cannot be written"):
        write_file(tmp_path / "weights", lambda partial: (_ for _ in ()).throw(error))


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_place_that_cannot_be_written_is_told(tmp_path, write):
    (tmp_path / "data").write_text("a file where a folder belongs")
    with pytest.raises(UserError, match=r"weights cannot be written \(Not a directory: .*data.*PARTCRAFT_DATA"):
        write(tmp_path / "data" / "06_models" / "weights", write_and_fail)


def test_what_cannot_be_read_while_something_is_written_is_no_place_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "here" / "table", lambda partial: (tmp_path / "elsewhere" / "picture").read_bytes())
    with pytest.raises(FileNotFoundError):  # another run renamed it
        write_file(tmp_path / "here" / "table", lambda partial: None)


def test_a_file_that_nobody_may_write_is_told(tmp_path):
    def refuse(partial):
        raise PermissionError(errno.EACCES, "Permission denied", str(partial))

    with pytest.raises(UserError, match=r"table cannot be written \(Permission denied: "):
        write_file(tmp_path / "table", refuse)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_copy_that_does_not_fit_is_told(tmp_path, filled):
    def copy(partial):
        (partial / "deep").mkdir()
        (partial / "deep" / "weights.bin").symlink_to("/dev/full")
        shutil.copytree(filled, partial, dirs_exist_ok=True)

    with pytest.raises(FullDisk, match="adapter cannot be written"):
        write_folder(tmp_path / "adapter", copy)


def test_what_a_killed_process_left_of_a_file_is_not_gone_on_with(tmp_path):
    """A database would be."""
    (tmp_path / ".a.partial.txt").write_text("half")
    write_file(tmp_path / "a.txt", lambda partial: partial.open("a").write("whole"))
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_a_file_s_ending_survives_while_it_is_written(tmp_path):
    """Writers such as Pillow's choose the format by the ending."""
    endings = []
    write_file(tmp_path / "a.png", lambda partial: (endings.append(partial.suffix), partial.touch()))
    assert endings == [".png"]


def test_a_folder_is_whole_or_absent_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "adapter"
    with pytest.raises(RuntimeError):
        write_folder(path, write_and_fail)
    assert list(tmp_path.iterdir()) == []
    write_folder(path, lambda partial: (partial / "old").touch())
    with pytest.raises(RuntimeError):
        write_folder(path, write_and_fail)
    assert [file.name for file in path.iterdir()] == ["old"]
    write_folder(path, lambda partial: (partial / "new").touch())
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_s_fingerprint_is_that_of_its_json_in_whatever_blocks_it_is_made(monkeypatch) -> None:
    rows = range(25)
    table = pd.DataFrame(
        {
            "id": [f'a"],"data":[é{i}😀' for i in rows],
            "part": [None, 1 / 3, np.nan, 2.0, 1e-20] * 5,
            "code": [np.arange(3) + i for i in rows],
        }
    )
    tables = (table, table.iloc[:0], table[table.index % 2 == 0], table.set_index("id"), table[["id"]])
    expected = [fingerprint_of(each.to_json(orient="split", double_precision=15)) for each in tables]
    assert len(set(expected)) == len(tables)
    for size in (1, 7, 10_000):
        monkeypatch.setattr(files, "_ROWS", size)
        assert [fingerprint_of(each) for each in tables] == expected


def test_two_workers_that_write_one_file_do_not_meet(tmp_path, monkeypatch) -> None:
    """One that was given up, and is not dead, must not rename what another is still writing."""
    path = tmp_path / "shard.txt"

    def write_beside(partial: Path) -> None:
        partial.write_text("half")
        monkeypatch.setenv(files.OWN_PARTIALS, "-other")
        write_file(path, lambda of_other: of_other.write_text("whole"))
        assert (partial.read_text(), path.read_text()) == ("half", "whole")
        partial.write_text("whole")

    monkeypatch.setenv(files.OWN_PARTIALS, "-one")
    write_file(path, write_beside)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("shard.txt", "whole")]
