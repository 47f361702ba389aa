"""Downloads from a real server on this machine: whole, broken off, lying, hostile."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from partcraft_kedro.errors import UserError
from partcraft_kedro.images.download import Archive, download, fetch, unpack

CONTENT = bytes(range(256)) * 2000


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, as `manner` says; `asked` lists the Range headers that came."""

    manner = "honest"
    content = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str | None] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked, content, manner = self.headers.get("Range"), self.server.content, self.server.manner
        self.server.asked.append(asked)
        if manner == "absent":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and manner != "ignores ranges" else 0
        rest = content[start:]
        self.send_response(416 if start and not rest else 206 if start else 200)
        claimed = len(rest) + (1000 if manner == "lies about length" else 0)
        self.send_header("Content-Length", str(claimed))
        if manner == "states a checksum":
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        self.wfile.write(rest[:100_000] if manner == "breaks off" else rest)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.content = CONTENT
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def archive(server) -> Archive:
    url = f"http://127.0.0.1:{server.server_port}/pictures.tar"
    return Archive(url, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("manner", ["honest", "breaks off", "ignores ranges", "lies about length"])
def test_an_archive_arrives_whole(server, archive, tmp_path, manner: str) -> None:
    server.manner = manner
    (tmp_path / ".pictures.tar.partial").write_bytes(CONTENT[:5000])
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked[0] == "bytes=5000-"  # what had come before is not asked for again
    assert (len(server.asked) > 1) == (manner in ("breaks off", "lies about length"))
    assert [path.name for path in tmp_path.iterdir()] == ["pictures.tar"]


def test_a_finished_partial_download_is_taken(server, archive, tmp_path) -> None:
    (tmp_path / ".pictures.tar.partial").write_bytes(CONTENT)
    assert fetch(archive, tmp_path).read_bytes() == CONTENT


def test_what_came_is_kept_when_the_server_goes(server, archive, tmp_path) -> None:
    (tmp_path / ".pictures.tar.partial").write_bytes(CONTENT[:5000])
    server.manner = "absent"
    with pytest.raises(UserError, match="404"):
        fetch(archive, tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="cannot be fetched whole"):
        fetch(archive, tmp_path)
    assert (tmp_path / ".pictures.tar.partial").read_bytes() == CONTENT[:5000]


def test_another_file_than_the_published_one_is_removed(server, archive, tmp_path) -> None:
    server.content = b"something else"
    with pytest.raises(UserError, match="is not the published archive"):
        fetch(archive, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_checksum_may_come_from_the_host(server, archive, tmp_path) -> None:
    unsigned = replace(archive, checksum=None)
    with pytest.raises(UserError, match="without a checksum"):
        fetch(unsigned, tmp_path)
    server.manner = "states a checksum"
    assert fetch(unsigned, tmp_path).read_bytes() == CONTENT


def test_download_fetches_unpacks_and_does_nothing_twice(server, archive, tmp_path) -> None:
    server.content = tar_of(**{"Images/a.jpg": b"a", "Images/b.jpg": b"b"})
    signed = replace(archive, checksum=f"sha256:{hashlib.sha256(server.content).hexdigest()}", folder="inner")
    download((signed,), tmp_path)
    assert (tmp_path / "inner" / "Images" / "b.jpg").read_bytes() == b"b"
    download((signed,), tmp_path)
    assert len(server.asked) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"inner", ".pictures.tar.json"}


def hostile(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if name == "bomb" else "w") as tar:
        member = tarfile.TarInfo({"outside": "../escaped.txt", "absolute": "/tmp/escaped.txt"}.get(name, name))
        if name in ("symbolic link", "hard link"):
            member.type = tarfile.SYMTYPE if name == "symbolic link" else tarfile.LNKTYPE
            member.linkname = "/etc/passwd"
        if name == "device":
            member.type = tarfile.CHRTYPE
        member.size = 20_000_000 if name == "bomb" else 0
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["outside", "symbolic link", "hard link", "device", "bomb"])
def test_a_hostile_archive_leaves_nothing_behind(tmp_path, name: str) -> None:
    path = tmp_path / "box" / "hostile.tar"
    path.parent.mkdir()
    path.write_bytes(hostile(name))
    with pytest.raises(UserError):
        unpack(path, tmp_path / "box" / "target")
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file()] == [path]


def test_an_absolute_path_is_unpacked_inside(tmp_path) -> None:
    """tarfile's data filter drops the leading slash."""
    path = tmp_path / "absolute.tar"
    path.write_bytes(hostile("absolute"))
    unpack(path, tmp_path / "target")
    assert (tmp_path / "target" / "tmp" / "escaped.txt").exists()


@pytest.mark.parametrize("cut", [100, 600])
def test_half_an_archive_is_told(tmp_path, cut: int) -> None:
    path = tmp_path / "half.tar"
    path.write_bytes(tar_of(a=bytes(2000))[:cut])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(path, tmp_path / "target")
    assert not (tmp_path / "target").exists()
