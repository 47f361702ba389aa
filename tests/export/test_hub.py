"""Uploading and fetching, with a small double of a hub's interface."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_a_token_of_a_test"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with `private` and `files`; `cut`: names of files of which only a half is there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.cut: set[str] = set()
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        repository = self.server.repositories.get(self._name())
        if not repository or (repository["private"] and not self._is_logged_in()):
            self._answer(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in self.path:
            self._send_file(repository["files"], self.path.split("/resolve/")[1].partition("/")[2])
        elif "/tree/" in self.path:
            files = repository["files"].items()
            told = [{"type": "file", "path": path, "size": len(content), "oid": path} for path, content in files]
            self._answer(200, told)
        else:
            siblings = [{"rfilename": path} for path in repository["files"]]
            self._answer(200, {"id": self._name(), "siblings": siblings, "sha": "0" * 40})

    do_HEAD = do_GET

    def _send_file(self, files: dict[str, bytes], path: str) -> None:
        content = files[path]
        about = {"ETag": f'"{len(content)}-{path}"', "X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
        if path in self.server.cut and self.command == "GET":
            content = content[: len(content) // 2]
        self._send(200, content, about)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._is_logged_in():
            self._answer(401, {"error": "Invalid credentials"})
        elif "/theirs" in self.path or b'"organization": "theirs"' in body:
            self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            there = name in self.server.repositories
            made = {"private": asked["visibility"] == "private", "files": {}}
            self.server.repositories.setdefault(name, made)
            self._answer(409 if there else 200, {"url": f"{self.server.address}/{name}"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            told = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            self._answer(200, {"files": told})
        elif "/commit/" in self.path:
            files = self.server.repositories[self._name()]["files"]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            commit = f"{self.server.address}/{self._name()}/commit/{'0' * 40}"
            self._answer(200, {"commitUrl": commit, "commitOid": "0" * 40})
        else:
            self._answer(404, {"error": self.path})

    def _name(self) -> str:
        return "/".join(self.path.split("?")[0].removeprefix("/api/models").removeprefix("/").split("/")[:2])

    def _is_logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _answer(self, status: int, content: Any, about: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (about or {}))

    def _send(self, status: int, content: bytes, about: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**about, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    (folder / "embeddings/partcraft-cub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: diffusers\n---\n# Birds\n")
    (folder / "embeddings/partcraft-cub/partcraft-cub-head-017.safetensors").write_bytes(bytes(range(256)))
    return folder


def push(folder: Path, address: str, token: str | None = TOKEN, public: bool = False, name: str = "me/birds") -> str:
    """The address, or the sentence of the error."""
    call = f"push(Path({str(folder)!r}), {name!r}, public={public})"
    return run([call], folder.parent / "home", address, token)[0]


def run(calls: list[str], home: Path, address: str, token: str | None = TOKEN) -> list[str]:
    """What calls return, or the sentences of their errors: in a process of its own, as the client reads HF_ENDPOINT
    once. home: of the client, where it keeps what it fetches."""
    script = f"""
from pathlib import Path
from partcraft_kedro.errors import UserError
from partcraft_kedro.export.finding import find_adapter
from partcraft_kedro.export.hub import push
for call in {calls!r}:
    try:
        print("→", eval(call))
    except UserError as error:
        print("→", error)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(home)} | ({"HF_TOKEN": token} if token else {})
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [line.removeprefix("→ ") for line in done.stdout.splitlines() if line.startswith("→ ")]


def test_an_export_is_uploaded_and_private(hub, folder) -> None:
    assert push(folder, hub.address) == f"{hub.address}/me/birds"
    repository = hub.repositories["me/birds"]
    assert repository["private"] is True
    expected = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: content for name, content in repository["files"].items() if name != ".gitattributes"} == expected


def test_others_see_it_where_that_is_said(hub, folder) -> None:
    push(folder, hub.address, public=True)
    assert hub.repositories["me/birds"]["private"] is False


def test_words_of_an_earlier_export_go_and_a_user_s_own_files_stay(hub, folder) -> None:
    old = {"embeddings/partcraft-cub/partcraft-cub-head-003.safetensors": b"", "mine.png": b"mine"}
    hub.repositories["me/birds"] = {"private": False, "files": old}
    push(folder, hub.address)
    files = hub.repositories["me/birds"]["files"]
    assert "embeddings/partcraft-cub/partcraft-cub-head-003.safetensors" not in files and files["mine.png"] == b"mine"
    assert "embeddings/partcraft-cub/partcraft-cub-head-017.safetensors" in files
    assert hub.repositories["me/birds"]["private"] is False


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_who_is_not_logged_in_is_told_how(hub, folder, token) -> None:
    assert push(folder, hub.address, token=token) == (
        "--push=me/birds failed (you are not logged in): log in with `hf auth login` or HF_TOKEN and run the same "
        f"command again; the export itself is in {folder}."
    )
    assert not hub.repositories


def test_what_is_another_s_is_told(hub, folder) -> None:
    told = push(folder, hub.address, name="theirs/birds")
    assert told.startswith(
        "--push=theirs/birds failed (your login may not do this): log in as its owner, or with a token"
    )


def test_a_hub_that_does_not_answer_is_told(folder) -> None:
    told = push(folder, "http://127.0.0.1:9")
    assert told.startswith(
        "--push=me/birds failed (the hub does not answer): look at the network, HF_ENDPOINT and HF_HUB"
    )


def test_the_adapter_of_an_export_is_fetched_by_its_name(hub, folder, tmp_path) -> None:
    """And is there when the hub is not; what is not whole, is another's or is nothing is told in one sentence."""
    files = {"adapter/adapter.json": b"{}", "adapter/part_encoder.safetensors": bytes(range(256)), "README.md": b"#"}
    names = ("birds", "secrets", "pictures")
    hub.repositories = {f"me/{name}": {"private": name == "secrets", "files": dict(files)} for name in names}
    hub.repositories["me/pictures"]["files"] = {"README.md": b"#"}
    hub.repositories["me/halves"] = {"private": False, "files": files | {"adapter/unet.safetensors": bytes(100)}}
    hub.cut.add("adapter/unet.safetensors")
    asked = [f"find_adapter({{}}, 'me/{name}')" for name in ("birds", "nothing", "secrets", "pictures", "halves")]
    home = tmp_path / "home"
    birds, nothing, secrets, pictures, halves = run(asked, home, hub.address, token=None)
    fetched = {path.relative_to(birds).as_posix(): path.read_bytes() for path in Path(birds).rglob("*")}
    assert fetched == {name.removeprefix("adapter/"): files[name] for name in list(files)[:2]}
    for name, told in (("nothing", nothing), ("secrets", secrets)):
        assert told == (
            f"The adapter me/{name} cannot be fetched (there is no such repository, or it is not yours to see): check "
            "its name, or log in with `hf auth login` or HF_TOKEN, and try again."
        )
    assert pictures == "The repository me/pictures holds no adapter: give one that `kedro export --push` made."
    assert halves.startswith("The adapter me/halves cannot be fetched (") and "size" in halves
    away = run([asked[0], asked[1]], home, "http://127.0.0.1:9", token=None)
    assert away[0] == birds
    assert away[1].startswith("The adapter me/nothing cannot be fetched (the hub does not answer): look at the network")
    assert run([asked[2]], home, hub.address)[0].endswith("adapter")
