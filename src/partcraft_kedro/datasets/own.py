"""Files that a run reads as it wrote them, whatever runs beside it, and that are written whole or not at all."""

from abc import abstractmethod
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from filelock import FileLock
from kedro.io import AbstractVersionedDataset, DataCatalog

from partcraft_kedro.files import write_file


def alone_in(folder: Path) -> FileLock:
    """Keeps other runs from saving into a folder meanwhile: two that fill the same file beside its place would mix.

    Not the lock of a stage: a sweep holds its folder's while its report saves into it.
    """
    return FileLock(folder / ".saving.lock")


def path_of(catalog: DataCatalog, name: str) -> Path:
    """Where the file or folder of a dataset with versions lies."""
    dataset = catalog.get(name)
    assert isinstance(dataset, AbstractVersionedDataset)
    return Path(str(dataset._get_load_path()))


def if_it_is_there(preview: Callable[..., Any]) -> Callable[..., Any]:
    """For a dataset's `preview`: nothing of what no run has made yet. kedro-viz would else warn of each such file."""

    @wraps(preview)
    def preview_or_none(self: Any, *arguments: Any, **options: Any) -> Any:
        return preview(self, *arguments, **options) if self.exists() else None

    return preview_or_none


class ReadsItsOwn:
    """For a dataset of one local file: what it has saved is what it loads, even if another run has saved since.

    The file is written beside its place and renamed, so that no run ever reads half of it.
    """

    _filepath: Any
    _content: bytes | None = None

    @abstractmethod
    def _encode(self, data: Any) -> bytes:
        """The file's content."""

    @abstractmethod
    def _decode(self, content: bytes) -> Any:
        """The inverse of `_encode`."""

    def save(self, data: Any) -> None:
        path, content = Path(self._filepath), self._encode(data)
        with alone_in(path.parent):
            write_file(path, lambda partial: partial.write_bytes(content))
        self._content = content

    @property
    def content(self) -> bytes:
        """The file as this run saved it; if it has not, as it is."""
        return Path(self._filepath).read_bytes() if self._content is None else self._content

    def load(self) -> Any:
        return self._decode(self.content)
