"""Uploading an export to a hub."""

from pathlib import Path

from huggingface_hub import HfApi

from partcraft_kedro.errors import UserError


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
            delete_patterns=["embeddings/*", "lora/*"],  # words of an earlier export, which the card's lines would load
        )
    except Exception as error:  # the network, the hub and its client have errors of their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"--push={name} failed ({reason}): log in with `hf auth login` or HF_TOKEN and run the same command again; "
            f"the export itself is in {folder}."
        ) from error
    return str(address)
