"""Files and folders that are written whole or not at all, and what stands for their content."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import pandas as pd

from partcraft_kedro.errors import FullDisk, NotWritten, UserError, in_one_line, is_full_disk

_ROWS = 10_000  # of a table that are JSON at once
_LARGE = 2**24  # bytes: smaller files are read as fast as they are looked up
OWN_PARTIALS = "PARTCRAFT_OWN_PARTIALS"
"""The variable of the environment that is set, to something that no other has, for a process beside which another may
write the same file: it is added to the names of half-written files."""
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
_SETTLED = 2 * 10**9  # nanoseconds: no file system's times are coarser
Content = TypeVar("Content")


def fingerprint_of(value: Any, memo: Path | None = None) -> str:
    """SHA-256 of a table, a file, a folder of files, or anything JSON can hold, as 16 hexadecimal digits.

    A folder's own name does not count; memo: as in `digest_of`.
    """
    if isinstance(value, pd.DataFrame):
        return _fingerprint_of_table(value)
    if isinstance(value, Path):
        files = [path for path in value.rglob("*") if path.is_file()] if value.is_dir() else [value]
        root = value if value.is_dir() else value.parent
        value = {path.relative_to(root).as_posix(): digest_of(path, memo) for path in files}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint_of_table(table: pd.DataFrame) -> str:
    """Of its JSON, column names, index and rows, made in blocks: whole, that of ten million rows has gigabytes."""
    blocks = [table.iloc[start : start + _ROWS] for start in range(0, len(table), _ROWS)]

    def text() -> Iterator[str]:
        yield table.iloc[:0].to_json(orient="split").removesuffix('],"data":[]}')
        for i, block in enumerate(blocks):
            index = block[[]].to_json(orient="split").removeprefix('{"columns":[],"index":[')
            yield "," * (i > 0) + index.partition('],"data":[')[0]
        yield '],"data":['
        for i, block in enumerate(blocks):
            yield "," * (i > 0) + block.to_json(orient="values", double_precision=15)[1:-1]
        yield "]}"

    digest = hashlib.sha256(b'"')
    for part in text():
        digest.update(json.dumps(part)[1:-1].encode())
    digest.update(b'"')
    return digest.hexdigest()[:16]


def digest_of(path: Path, memo: Path | None = None) -> str:
    """SHA-256 of a file, read in blocks.

    memo: a folder that remembers the digests of large files, so that they are read once and not in every run.
    """
    with path.open("rb") as file:
        state = _state_of(file)
        if memo is None or state["size"] < _LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        known = memo / fingerprint_of({"path": str(path.resolve()), **state})
        digest = known.read_text() if known.exists() else ""
        if len(digest) == 64:  # else a machine that lost power left less
            return digest
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        # Of a file changed just now, a further change could leave the same times: it will be read again.
        settled = max(state["modified"], state["changed"]) < time.time_ns() - _SETTLED
        if settled and _state_of(file) == state:
            with contextlib.suppress(FileNotFoundError):  # another run renamed it, of the same content
                write_file(known, lambda partial: partial.write_text(digest))
    return digest


def _state_of(file: IO[bytes]) -> dict[str, int]:
    """What of a file cannot stay as it is when its content changes: tools that set the time of modification back do
    not set back that of the last change to the file's entry."""
    status = os.fstat(file.fileno())
    return {
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "changed": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def read_file(path: Path, read: Callable[[Path], Content]) -> Content:
    """What `read` makes of a file. Raises UserError naming one that is missing or damaged."""
    try:
        return read(path)
    except Exception as error:  # every format has errors of its own
        reason = in_one_line(error)
        raise UserError(
            f"{path} cannot be read ({reason}): restore it, or delete {path.parent} to have it made again."
        ) from error


@contextlib.contextmanager
def named_if_not_written(path: Path) -> Iterator[None]:
    """Raises NotWritten naming `path` where it cannot be written, FullDisk where the disk is full: few of the errors
    that say so have a name."""
    try:
        yield
    except Exception as error:  # every format has errors of its own
        if is_full_disk(error):
            raise FullDisk(path) from error
        if isinstance(error, OSError) and _forbids(error, path):
            raise NotWritten(
                f"{path} cannot be written ({error.strerror}: {error.filename}): allow it, or let PARTCRAFT_DATA name "
                "another place; finished work is kept."
            ) from error
        raise


def _forbids(error: OSError, path: Path) -> bool:
    """Whether an error says that a folder on the way to a path cannot be, or that nothing may be written there. All
    else may be about something that was to be read, or about a file that another run renamed."""
    if not isinstance(error.filename, str):
        return False
    place = Path(error.filename)
    return path.is_relative_to(place) or (error.errno in _FORBIDDEN and place.is_relative_to(path.parent))


def write_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then rename it into place. Raises FullDisk or NotWritten."""
    partial = path.with_name(f".{path.stem}.partial{os.environ.get(OWN_PARTIALS, '')}{path.suffix}")
    with named_if_not_written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # of a process that was killed
        try:
            write(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_file(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def link_folder(folder: Path, to: Path) -> None:
    """Copy a folder, by hard links where the file system has them: of files that nobody writes to in place."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another disk, or a file system without hard links
            shutil.copy2(source, target)

    shutil.copytree(folder, to, copy_function=link, dirs_exist_ok=True)


def write_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a folder beside `path`, then rename it into place, replacing what stood there. Raises
    FullDisk or NotWritten."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with named_if_not_written(path):
        partial.mkdir(parents=True)
        try:
            write(partial)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
