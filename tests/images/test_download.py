"""Downloads from a real server on this machine: whole, broken off, lying, hostile."""

import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from partcraft_kedro.errors import UserError
from partcraft_kedro.images.download import Archive, download, fetch, unpack

CONTENT = bytes(range(256)) * 2000


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, as `manner` says, also as the hub serves a file; `asked` lists the Range headers that came."""

    manner = "honest"
    content = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str | None] = []
        self.stalled = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        """What the hub tells of a large file."""
        known = self.path in [f"/datasets/rocca/sims4-faces/resolve/main/{name}.tar" for name in ("masc", "fem")]
        if self.server.manner == "absent" or not known:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("X-Linked-Size", str(len(self.server.content)))
        if self.server.manner != "states no checksum":
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
        self.end_headers()

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
        self.end_headers()
        self.wfile.write(rest[:100_000] if manner in ("breaks off", "stalls") else rest)
        if manner == "stalls":
            self.server.stalled.wait(60)

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
    return Archive(f"{server.address}/pictures.tar", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")


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


def test_download_fetches_unpacks_and_does_nothing_twice(server, archive, tmp_path) -> None:
    server.content = tar_of(**{"Images/a.jpg": b"a", "Images/b.jpg": b"b"})
    signed = replace(archive, checksum=f"sha256:{hashlib.sha256(server.content).hexdigest()}", folder="inner")
    download((signed,), tmp_path)
    assert (tmp_path / "inner" / "Images" / "b.jpg").read_bytes() == b"b"
    download((signed,), tmp_path)
    assert len(server.asked) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"inner", ".pictures.tar.json"}


# --- The hub


FETCH = """
import sys
from pathlib import Path
from partcraft_kedro.errors import UserError
from partcraft_kedro.images.download import ARCHIVES, download
try:
    download(ARCHIVES["sims4"], Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
"""


def fetch_sims4(server: Server, folder: Path, **environment: str) -> subprocess.Popen:
    """In a process of its own: the hub's address is read when its library is imported."""
    there = os.environ | {"HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0"} | environment
    return subprocess.Popen([sys.executable, "-c", FETCH, folder], env=there, stderr=subprocess.PIPE, text=True)


def test_sims4_comes_from_the_hub_and_a_killed_download_goes_on(server, tmp_path) -> None:
    server.content, server.manner = tar_of(**{"a.jpg": bytes(200_000)}), "stalls"
    killed, partial = fetch_sims4(server, tmp_path), tmp_path / ".masc.tar.partial"
    while killed.poll() is None and (not partial.exists() or partial.stat().st_size < 100_000):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() < 0, killed.communicate()
    server.stalled.set()
    server.manner = "honest"
    again = fetch_sims4(server, tmp_path)
    assert again.wait() == 0, again.communicate()
    assert server.asked == [None, "bytes=100000-", None]
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        *("masc/a.jpg", "fem/a.jpg", ".masc.tar.json", ".fem.tar.json")
    }


@pytest.mark.parametrize(
    ("manner", "told"),
    [
        ("absent", r"cannot be reached \(RepositoryNotFoundError\): run the same command again when it can"),
        ("gone", r"cannot be reached \(ConnectError\): .* HF_ENDPOINT=<address of a mirror>\."),
        ("offline", r"cannot be reached \(OfflineModeIsEnabled\): "),
        ("states no checksum", "comes without a checksum"),
    ],
)
def test_a_hub_without_sims4_is_told_in_one_sentence(server, tmp_path, manner: str, told: str) -> None:
    server.manner = manner
    if manner == "gone":
        server.shutdown()
        server.server_close()
    run = fetch_sims4(server, tmp_path, **({"HF_HUB_OFFLINE": "1"} if manner == "offline" else {}))
    _, output = run.communicate()
    assert run.returncode == 1
    url = f"{server.address}/datasets/rocca/sims4-faces/resolve/main/masc.tar"
    assert re.fullmatch(rf"{re.escape(url)} {told}.*\n", output), output
    assert not list(tmp_path.iterdir())


# --- Unpacking


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
