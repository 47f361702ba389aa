"""Uploading, to a small double of a hub's interface."""

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
    """Repositories by name, each with `private` and `files`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        name = self._name()
        if self.path.split("?")[0].startswith("/api/models/") and "/tree/" in self.path and name:
            files = self.server.repositories[name]["files"]
            self._answer(200, [{"type": "file", "path": path, "size": 1, "oid": "0"} for path in files])
        elif self.path.startswith("/api/models/") and name:
            siblings = [{"rfilename": path} for path in self.server.repositories[name]["files"]]
            self._answer(200, {"id": name, "siblings": siblings, "sha": "0" * 40})
        else:
            self._answer(404, {"error": "not here"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
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
        return "/".join(self.path.split("?")[0].removeprefix("/api/models/").split("/")[:2])

    def _answer(self, status: int, content: Any) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

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
    """The address, or the sentence of the error: in a process of its own, since the client reads HF_ENDPOINT once."""
    script = f"""
from pathlib import Path
from partcraft_kedro.errors import UserError
from partcraft_kedro.export.hub import push
try:
    print(push(Path({str(folder)!r}), {name!r}, public={public}))
except UserError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(folder.parent / "home")} | (
        {"HF_TOKEN": token} if token else {}
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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
    told = push(folder, hub.address, token=token)
    assert told.startswith("--push=me/birds failed (") and "\n" not in told
    assert told.endswith(
        f"log in with `hf auth login` or HF_TOKEN and run the same command again; the export itself is in {folder}."
    )
    assert not hub.repositories


def test_a_hub_that_does_not_answer_is_told(folder) -> None:
    assert push(folder, "http://127.0.0.1:9").startswith("--push=me/birds failed (")
