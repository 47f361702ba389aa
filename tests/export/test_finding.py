"""Which adapter is meant."""

from pathlib import Path

import pytest
from kedro.io import Version

from partcraft_kedro.datasets import AdapterDataset
from partcraft_kedro.errors import UserError
from partcraft_kedro.export.finding import find_adapter


@pytest.fixture
def versions(tmp_path: Path) -> dict[str, Path]:
    """Two in the catalog."""
    folders = {name: tmp_path / "catalog/adapter" / name / "adapter" for name in ("2026-01-01", "2026-01-02")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "adapter.json").write_text("{}")
    return folders


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "export/adapter").mkdir(parents=True)
    (tmp_path / "export/adapter/adapter.json").write_text("{}")
    return tmp_path / "export"


def test_a_version_a_folder_or_an_export_is_meant(versions, export, monkeypatch) -> None:
    assert find_adapter(versions, "2026-01-01") == versions["2026-01-01"]
    for asked in (export / "adapter", export):
        assert find_adapter(versions, str(asked)) == export / "adapter"
    monkeypatch.chdir(export.parent)
    assert find_adapter(versions, "export/adapter") == Path("export/adapter")  # and not a hub id


@pytest.mark.parametrize("asked", ["2026", "a/b/c", "me:birds", ""])
def test_what_is_none_of_these_is_told(versions, asked) -> None:
    with pytest.raises(UserError, match=r"^There is no adapter version or folder|holds no adapter"):
        find_adapter(versions, asked)


def test_a_folder_without_an_adapter_is_told(versions, tmp_path) -> None:
    with pytest.raises(UserError, match=r"catalog holds no adapter: give the folder of one, or of an export\.$"):
        find_adapter(versions, str(tmp_path / "catalog"))


def test_the_catalog_loads_a_folder_as_a_version(versions, export, tmp_path) -> None:
    """`--load-versions=adapter:<folder>`."""

    def dataset(asked: str | None) -> AdapterDataset:
        return AdapterDataset(filepath=str(tmp_path / "catalog/adapter"), version=Version(asked, None))

    assert dataset(None).load() == versions["2026-01-02"]
    assert dataset("2026-01-01").load() == versions["2026-01-01"]
    other = dataset(str(export))
    assert other.exists() and other.load() == export / "adapter"
    other.refuse_missing(str(export))
    with pytest.raises(UserError, match="There is no adapter version or folder 'nowhere'"):
        other.refuse_missing("nowhere")
