"""Uploading an export to a hub, and fetching the adapter in one."""

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from partcraft_kedro.errors import UserError, in_one_line
from partcraft_kedro.export import ADAPTER

_LOG_IN = "log in with `hf auth login` or HF_TOKEN"


def push(folder: Path, name: str, *, public: bool) -> str:
    """Upload an export, in the place of an earlier one; returns its address.

    name: `owner/name`; public: whether a repository that is made now can be seen by others; one that there is stays as
    it is. The hub is that of HF_ENDPOINT. Raises UserError if it cannot be uploaded.
    """
    try:
        api = HfApi()
        address = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Export of partcraft-kedro",
            # Of an earlier export: its words, which the card's lines would load.
            delete_patterns=["embeddings/*", "lora/*", f"{ADAPTER}/*"],
        )
    except Exception as error:  # the network, the hub and its client have errors of their own
        reason, remedy = _explain(error)
        raise UserError(
            f"--push={name} failed ({reason}): {remedy} and run the same command again; the export itself is in "
            f"{folder}."
        ) from error
    return str(address)


def fetch_adapter(name: str) -> Path:
    """The folder of the adapter in an export that was uploaded; as it was fetched before where the hub does not answer.

    name: `owner/name`. Raises UserError if it cannot be fetched whole.
    """
    try:
        folder = Path(snapshot_download(name, allow_patterns=f"{ADAPTER}/*")) / ADAPTER
    except Exception as error:  # as in `push`
        reason, remedy = _explain(error)
        raise UserError(f"The adapter {name} cannot be fetched ({reason}): {remedy} and try again.") from error
    if not (folder / "adapter.json").exists():
        raise UserError(f"The repository {name} holds no adapter: give one that `kedro export --push` made.")
    return folder


def _explain(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is not yours to see", f"check its name, or {_LOG_IN},"
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return "you are not logged in", _LOG_IN
    if status == 403:
        return "your login may not do this", "log in as its owner, or with a token that may write,"
    of_network = type(error).__module__.startswith("httpx") and status is None
    if of_network or isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "the hub does not answer", "look at the network, HF_ENDPOINT and HF_HUB_OFFLINE,"
    return in_one_line(error)[:200], "wait a little"
