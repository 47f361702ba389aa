"""What was made, kept in a folder: PNG with their recipes, and JSON."""

import json
import logging
import re
import secrets
import shutil
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from partcraft_kedro.compose.studio import Made
from partcraft_kedro.errors import UserError
from partcraft_kedro.files import read_file, write_folder, write_json
from partcraft_kedro.generation.recipes import Recipe, write_picture
from partcraft_kedro.prompts import split_prompt

_logger = logging.getLogger(__name__)
_BOARD, _MAKING = re.compile(r"[0-9a-z]{16,40}"), re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")
_FILE = "making.json"
_MISSING = "There is no such picture on this board."


class History:
    """A board: a tree of makings, each a folder with its pictures and `making.json`.

    root: of all boards; board: its name, which who knows it can see: 16 to 40 digits and lower-case letters. Raises
    UserError for another. names: of the parts, to say what changed.

    A making in JSON: `id`, `parent` (an id, or null), `change` (in words), `pictures`; of each `recipe`, `before`,
    `code` and `after` of its prompt, `found` and `cosine` of each part, `arrived` of each asked part, `starred`, and
    what to overlay: `label_map` and `attention` by part, grids of bytes in base64.
    """

    def __init__(self, root: Path, board: str, names: Sequence[str]):
        if not _BOARD.fullmatch(board):
            raise UserError("There is no such board.")
        self._folder, self._names = root / board, names

    def makings(self) -> list[dict[str, Any]]:
        """All that are whole, the oldest first; a damaged one is told in the log."""
        makings = []
        for path in sorted(self._folder.glob(f"*/{_FILE}")):
            if _MAKING.fullmatch(path.parent.name):
                try:
                    makings.append(_read(path))
                except UserError as error:
                    _logger.warning("A making is left out: %s", error)
        return makings

    def add(self, made: Sequence[Made], parent: str | None) -> dict[str, Any]:
        """Keep pictures that were made together. parent: the making that they were made from, if it is still there."""
        before = _read(self._folder / parent / _FILE) if parent and self._is_there(parent) else None
        pictures = [self._describe(picture) for picture in made]
        id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
        making = {
            "id": id,
            "parent": before and before["id"],
            "change": self._change(before and before["pictures"][0], pictures[0]),
            "pictures": pictures,
        }

        def write(folder: Path) -> None:
            for number, picture in enumerate(made):
                write_picture(picture.picture, picture.recipe, folder / f"{number}.png")
            (folder / _FILE).write_text(json.dumps(making))

        write_folder(self._folder / id, write)
        return making

    def star(self, making: str, number: int, starred: bool) -> dict[str, Any]:
        """Mark a picture, or no longer. Raises UserError if there is none."""
        with self._alone():
            path = self.picture(making, number).parent / _FILE
            content = _read(path)
            content["pictures"][number]["starred"] = starred
            write_json(path, content)
        return content

    def delete(self, making: str) -> None:
        """Remove a making; what was made from it hangs on its parent. Raises UserError if there is none."""
        with self._alone():
            folder = self._folder_of(making)
            parent = _read(folder / _FILE)["parent"]
            for other in self.makings():
                if other["parent"] == making:
                    write_json(self._folder / other["id"] / _FILE, other | {"parent": parent})
            hidden = self._folder / f".{making}.deleted"
            folder.rename(hidden)  # at once: a killed process leaves nothing that is half there
            shutil.rmtree(hidden)

    def _alone(self) -> FileLock:
        """Keeps others from changing what is there meanwhile."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / ".lock")

    def picture(self, making: str, number: int) -> Path:
        """The PNG. Raises UserError if there is none."""
        if not (path := self._folder_of(making) / f"{number}.png").exists():
            raise UserError(_MISSING)
        return path

    def _folder_of(self, making: str) -> Path:
        """Raises UserError if there is no such making."""
        if not self._is_there(making):
            raise UserError(_MISSING)
        return self._folder / making

    def _is_there(self, making: str) -> bool:
        return bool(_MAKING.fullmatch(making)) and (self._folder / making / _FILE).exists()

    def _describe(self, made: Made) -> dict[str, Any]:
        before, code, after = split_prompt(made.recipe.prompt, len(self._names))
        return {
            "recipe": made.recipe.to_json(),
            "before": before,
            "code": code,
            "after": after,
            "found": made.seen.code,
            "cosine": made.seen.cosine,
            "arrived": {str(part): arrived for part, arrived in made.arrived.items()},
            "label_map": grid_of_bytes(made.seen.label_map),
            "attention": {
                str(part): grid_of_bytes(looked / max(looked.max(), 1e-9) * 255)
                for part, looked in made.attention.items()
            },
            "starred": False,
        }

    def _change(self, before: dict[str, Any] | None, now: dict[str, Any]) -> str:
        """What is different from what it was made from, in words."""
        if before is None:
            return "start"
        old, new = (Recipe(**picture["recipe"]) for picture in (before, now))
        pairs = zip(self._names, before["code"], now["code"], strict=True)
        changes = [name for name, was, is_now in pairs if was != is_now]
        if (before["before"], before["after"]) != (now["before"], now["after"]):
            changes.append("words")
        if old.seed != new.seed:
            changes.append("new noise")
        if old.sampling.steps != new.sampling.steps:
            changes.append(f"{new.sampling.steps} steps")
        if old.sampling.model_copy(update={"steps": new.sampling.steps}) != new.sampling:
            changes.append("guidance")
        return ", ".join(changes) or "again"


def grid_of_bytes(grid: np.ndarray) -> dict[str, Any]:
    """(h, w) of values 0 to 255 as JSON."""
    return {"width": grid.shape[1], "bytes": b64encode(grid.astype(np.uint8).tobytes()).decode()}


def _read(path: Path) -> dict[str, Any]:
    return read_file(path, lambda file: json.loads(file.read_text()))
