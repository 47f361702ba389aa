"""A versioned folder: what nodes pass on when a result is several files, such as an adapter."""

import filecmp
import shutil
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, DatasetError, Version

from partcraft_kedro.datasets.own import alone_in
from partcraft_kedro.errors import unknown
from partcraft_kedro.files import link_folder, write_folder

_FORMAT = "%Y-%m-%dT%H.%M.%S.%fZ"  # of Kedro's versions, which have milliseconds


class FolderDataset(AbstractVersionedDataset[Path, Path]):
    """Saves a finished folder, whole or not at all, by hard links where the file system has them; loads as a path.

    What equals the newest version is no further one. What a run has saved is what it loads, even if another run beside
    it has meanwhile saved a newer version.

    Example: `{type: partcraft_kedro.datasets.FolderDataset, filepath: data/06_models/adapter, versioned: true}`
    """

    def __init__(self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None):
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata
        self._saved: str | None = None

    def load(self) -> Path:
        path = Path(self._get_load_path())
        if not path.is_dir():
            raise DatasetError(f"{path} is not there: run the stage that makes it.")
        return path

    def save(self, data: Path) -> None:
        versions = Path(self._filepath)
        with alone_in(versions.parent):
            for found in versions.glob("*"):
                if not (found / versions.name).exists():  # of a run that was killed meanwhile
                    shutil.rmtree(found)
            newest = max((found.name for found in versions.glob("*")), default=None)
            if newest and _are_equal(data, versions / newest / versions.name):
                self._saved = newest
                return
            version = self.resolve_save_version()
            assert version is not None  # versioned: true
            while (versions / version).exists():  # of another run, begun in the same millisecond
                version = _next(version)
            write_folder(versions / version / versions.name, lambda partial: link_folder(data, partial))
            self._saved = version

    def versions(self) -> dict[str, Path]:
        """The folders of all versions by their names, the oldest first."""
        place = Path(self._filepath)
        return {folder.parent.name: folder for folder in sorted(place.glob(f"*/{place.name}"))}

    def refuse_missing(self, version: str) -> None:
        """Raises UserError if there is no such version to load."""
        if version not in self.versions():
            raise unknown(f"version of {Path(self._filepath).name}", version, self.versions())

    def resolve_load_version(self) -> str | None:
        if self._saved and not (self._version and self._version.load):
            return self._saved
        return super().resolve_load_version()

    def _exists(self) -> bool:
        try:
            return Path(self._get_load_path()).is_dir()
        except DatasetError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "version": self._version}


def _next(version: str) -> str:
    """The version a millisecond later."""
    later = datetime.strptime(version, _FORMAT) + timedelta(milliseconds=1)
    return f"{later.strftime(_FORMAT)[:-4]}Z"


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files; those that are one file on the disk are not read."""
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    if files != sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file()):
        return False
    return all(
        (one / file).samefile(other / file) or filecmp.cmp(one / file, other / file, shallow=False) for file in files
    )
