import pandas as pd
import pytest

from partcraft_kedro.assets import TINY, model_fingerprint, resolve_model
from partcraft_kedro.errors import UserError
from partcraft_kedro.stages import Stage, fingerprint_of, write_file, write_folder, write_json

KEY = {"version": 1, "options": {"k": 2, "model": "tiny"}, "inputs": {"images": "abc"}}


@pytest.fixture
def filled(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights.bin").write_bytes(b"1234")
    return folder


def write_and_fail(path):
    (path / "half" if path.is_dir() else path).write_text("half")
    raise RuntimeError("the writer breaks")


@pytest.mark.parametrize(
    "other",
    [{"version": 2}, {"options": {"k": 3, "model": "tiny"}}, {"inputs": {"images": "abd"}}],
    ids=["version", "options", "inputs"],
)
def test_anything_changed_is_another_folder(tmp_path, other):
    stage = Stage(tmp_path, "parts", **KEY)
    stage.finish()
    changed = Stage(tmp_path, "parts", **KEY | other)
    assert changed.folder != stage.folder
    assert not changed.finished


def test_the_order_of_options_does_not_matter(tmp_path):
    reordered = KEY | {"options": {"model": "tiny", "k": 2}}
    assert Stage(tmp_path, "parts", **KEY).folder == Stage(tmp_path, "parts", **reordered).folder


def test_a_folder_is_finished_only_once_declared(tmp_path):
    stage = Stage(tmp_path, "parts", **KEY)
    write_json(stage.folder / "result.json", [1])
    assert not Stage(tmp_path, "parts", **KEY).finished
    stage.finish({"pictures": 3})
    again = Stage(tmp_path, "parts", **KEY)
    assert again.finished
    assert again.summary == {"pictures": 3}


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


def test_models_are_found_in_the_package_in_folders_and_on_hubs(filled):
    assert resolve_model("tiny", "base", "base.model") == str(TINY / "base")
    assert resolve_model(str(filled), "base", "base.model") == str(filled)
    assert resolve_model("owner/model", "base", "base.model") == "owner/model"


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/model", "/nowhere", "~/model", "a/b/c"])
def test_an_unknown_model_is_refused_with_the_option_s_name(name):
    with pytest.raises(UserError, match=r"base\.model="):
        resolve_model(name, "base", "base.model")


def test_a_local_model_s_key_follows_its_files(filled):
    before = model_fingerprint(str(filled), "base", "base.model")
    (filled / "config.json").write_text("{}")
    assert model_fingerprint(str(filled), "base", "base.model") != before
    assert model_fingerprint("owner/model", "base", "base.model") == "owner/model"
