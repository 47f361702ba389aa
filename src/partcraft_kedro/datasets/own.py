"""Files that a run reads as it wrote them, whatever runs beside it."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from partcraft_kedro.stages import write_file


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
        content = self._encode(data)
        write_file(Path(self._filepath), lambda partial: partial.write_bytes(content))
        self._content = content

    def load(self) -> Any:
        return self._decode(Path(self._filepath).read_bytes() if self._content is None else self._content)
