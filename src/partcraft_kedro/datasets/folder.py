"""A versioned folder: what nodes pass on when a result is several files, such as an adapter."""

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import AbstractVersionedDataset, DatasetError, Version

from partcraft_kedro.datasets.own import alone_in
from partcraft_kedro.files import write_folder


class FolderDataset(AbstractVersionedDataset[Path, Path]):
    """Saves by copying a finished folder, whole or not at all; loads as the path of the copy.

    What a run has saved is what it loads, even if another run beside it has meanwhile saved a newer version.

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
        path, versions = Path(self._get_save_path()), Path(self._filepath)
        with alone_in(versions.parent):
            for version in versions.glob("*"):
                if not (version / versions.name).exists():  # of a run that was killed meanwhile
                    shutil.rmtree(version)
            write_folder(path, lambda partial: shutil.copytree(data, partial, dirs_exist_ok=True))
        self._saved = self.resolve_save_version()

    def resolve_load_version(self) -> str | None:
        if self._saved and not self._version.load:
            return self._saved
        return super().resolve_load_version()

    def _exists(self) -> bool:
        try:
            return Path(self._get_load_path()).is_dir()
        except DatasetError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "version": self._version}
