"""Finding the adapter that somebody asks for."""

from collections.abc import Mapping
from pathlib import Path

from partcraft_kedro.errors import UserError, unknown
from partcraft_kedro.export import ADAPTER
from partcraft_kedro.weights import is_hub_id


def find_adapter(versions: Mapping[str, Path], asked: str) -> Path:
    """The folder of an adapter. versions: those that there are; asked: one of them, the folder of an adapter or of an
    export, or the hub id of an export, `owner/name`.

    Raises UserError if it is none of these, or cannot be fetched.
    """
    if asked in versions:
        return versions[asked]
    folder = Path(asked).expanduser()
    for place in (folder, folder / ADAPTER):
        if (place / "adapter.json").exists():
            return place
    if folder.exists():
        raise UserError(f"{folder} holds no adapter: give the folder of one, or of an export.")
    if is_hub_id(asked):
        from partcraft_kedro.export.hub import fetch_adapter  # slow to import

        return fetch_adapter(asked)
    raise unknown("adapter version or folder", asked, versions)
