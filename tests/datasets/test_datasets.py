"""The project's own catalog datasets."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError, Version
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as PlotlyFigure

from partcraft_kedro.datasets import (
    DocumentDataset,
    EditableDataset,
    FigureDataset,
    FolderDataset,
    PageDataset,
    PlotDataset,
    StageRefDataset,
    TableDataset,
    unless_drawn,
)
from partcraft_kedro.files import write_file
from partcraft_kedro.stages import StageRef


def test_a_table_with_codes_has_a_preview(tmp_path) -> None:
    dataset = TableDataset(filepath=str(tmp_path / "table.parquet"))
    dataset.save(pd.DataFrame({"id": ["a", "b"], "code": [np.array([1, -1]), np.array([0, 2])]}))
    preview = json.loads(json.dumps(dataset.preview(nrows=1)))
    assert preview["columns"] == ["id", "code"] and preview["data"] == [["a", [1, -1]]]


def test_a_folder_is_kept_in_versions(tmp_path) -> None:
    for version, text in (("1", "first"), ("2", "second")):
        source = tmp_path / f"source{version}"
        (source / "deep").mkdir(parents=True)
        (source / "deep" / "file.txt").write_text(text)
        FolderDataset(filepath=str(tmp_path / "kept"), version=Version(None, version)).save(source)

    def read(load: str | None) -> str:
        folder = FolderDataset(filepath=str(tmp_path / "kept"), version=Version(load, None)).load()
        return (folder / "deep" / "file.txt").read_text()

    assert read(None) == "second"
    assert read("1") == "first"
    with pytest.raises(DatasetError):
        read("3")


def test_a_run_loads_what_it_saved_though_another_saves_a_newer_version(tmp_path) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    own, other = (FolderDataset(filepath=str(tmp_path / "kept"), version=Version(None, v)) for v in ("1", "2"))
    own.save(tmp_path / "own")
    other.save(tmp_path / "other")
    assert [path.name for path in own.load().iterdir()] == ["own"]
    assert [path.name for path in other.load().iterdir()] == ["other"]


def test_a_folder_takes_no_room_and_no_version_for_what_is_there(tmp_path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("first")
    for version, written in (("1", "first"), ("2", "first"), ("3", "second")):
        if (tmp_path / "made" / "weights").read_text() != written:
            write_file(tmp_path / "made" / "weights", lambda path, text=written: path.write_text(text))
        dataset = FolderDataset(filepath=str(tmp_path / "kept"), version=Version(None, version))
        dataset.save(tmp_path / "made")
        assert (dataset.load() / "weights").samefile(tmp_path / "made" / "weights")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["1", "3"]
    assert (tmp_path / "kept" / "1" / "kept" / "weights").read_text() == "first"


def test_two_runs_begun_in_the_same_millisecond_keep_a_version_each(tmp_path) -> None:
    places = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        dataset = FolderDataset(filepath=str(tmp_path / "kept"), version=Version(None, "2026-01-31T23.59.59.999Z"))
        dataset.save(tmp_path / name)
        places.append(dataset.load())
        assert [path.name for path in places[-1].iterdir()] == [name]
    assert [place.parent.name for place in places] == ["2026-01-31T23.59.59.999Z", "2026-02-01T00.00.00.000Z"]


def test_equal_content_elsewhere_is_no_further_version(tmp_path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "weights").write_text("same")
        FolderDataset(filepath=str(tmp_path / "kept"), version=Version(None, version)).save(tmp_path / version)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("kind", "own", "other"),
    [
        (TableDataset, pd.DataFrame({"code": [[1, 2]]}), pd.DataFrame({"code": [[3]]})),
        (DocumentDataset, {"folder": "own"}, {"folder": "other"}),
        (EditableDataset, {1: "head", 0: "background"}, {1: "tail"}),
    ],
)
def test_a_run_loads_the_file_that_it_saved_though_another_saves_since(tmp_path, kind, own, other) -> None:
    first, second, third = (kind(filepath=str(tmp_path / "file")) for _ in range(3))
    with pytest.raises(DatasetError):
        first.load()
    first.save(own)
    second.save(other)

    def plain(data):
        return data["code"].map(list).tolist() if isinstance(data, pd.DataFrame) else data

    assert plain(first.load()) == plain(own)
    assert plain(second.load()) == plain(third.load()) == plain(other)
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".saving.lock"}


@pytest.mark.parametrize(
    ("kind", "of"),
    [(FigureDataset, lambda width: Figure(figsize=(width, 1))), (PageDataset, lambda width: "ö" * width)],
)
def test_a_figure_or_page_is_what_this_run_drew(tmp_path, kind, of) -> None:
    own, other = kind(filepath=str(tmp_path / "file.png")), kind(filepath=str(tmp_path / "file.png"))
    own.save(of(2))
    other.save(of(3))
    assert own.content != other.content == (tmp_path / "file.png").read_bytes()
    size = (lambda shown: shown.width) if kind is FigureDataset else len
    assert size(own.load()) / 2 == size(other.load()) / 3


def test_a_plot_is_kept(tmp_path) -> None:
    plot = PlotlyFigure(layout={"title": "none"})
    PlotDataset(filepath=str(tmp_path / "plot.json")).save(plot)
    assert PlotDataset(filepath=str(tmp_path / "plot.json")).load() == plot


WRITE = """
import sys
from partcraft_kedro.datasets import PageDataset
for _ in range(200):
    PageDataset(filepath=sys.argv[1]).save(sys.argv[2] * 10**6)
"""


def test_two_runs_that_save_the_same_file_at_once_do_not_meet(tmp_path) -> None:
    page = str(tmp_path / "page.html")
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, page, letter]) for letter in "ab"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert set(Path(page).read_text()) in ({"a"}, {"b"})


def test_what_killed_runs_left_of_versions_goes(tmp_path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "kept" / "1" / ".kept.partial").mkdir(parents=True)
    for version in ("2", "3"):
        (tmp_path / "source" / version).touch()
        FolderDataset(filepath=str(tmp_path / "kept"), version=Version(None, version)).save(tmp_path / "source")
    assert sorted(path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").glob("*/*")) == [
        *("2/kept", "3/kept")
    ]


def test_a_stage_is_found_in_a_folder_of_data_that_was_moved(tmp_path) -> None:
    made = StageRef(tmp_path / "data" / "04_feature" / "features-abc", "abc", {"grid": 16})
    filepath = tmp_path / "features.json"
    StageRefDataset(filepath=str(filepath), root=str(tmp_path / "data")).save(made)
    moved = StageRefDataset(filepath=str(filepath), root=str(tmp_path / "moved")).load()
    assert moved == StageRef(tmp_path / "moved" / "04_feature" / "features-abc", "abc", {"grid": 16}, found=True)


def test_a_figure_of_the_same_inputs_is_not_drawn_again(tmp_path):
    drawn = []

    @unless_drawn
    def draw(table: pd.DataFrame, text: str) -> Figure:
        drawn.append(text)
        return Figure(figsize=(1, 1))

    place = str(tmp_path / "figure.png")
    table = pd.DataFrame({"path": ["a.png"], "code": [[1, 2]]})
    for _ in range(2):
        FigureDataset(filepath=place).save(draw(table, "a"))
    assert drawn == ["a"]
    FigureDataset(filepath=place).save(draw(table, "b"))
    FigureDataset(filepath=place).save(draw(table.assign(code=[[1, 3]]), "b"))
    FigureDataset(filepath=place, save_args={"dpi": 30}).save(draw(table.assign(code=[[1, 3]]), "b"))
    assert drawn == ["a", "b", "b", "b"]
    Path(place).write_bytes(Path(place).read_bytes()[:20])
    dataset = FigureDataset(filepath=place)
    dataset.save(draw(table, "c"))
    assert drawn[-1] == "c" and dataset.load().size == (100, 100)
