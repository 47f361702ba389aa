"""Fetching the publishers' archives: resumable, verified, and unpacked safely."""

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import write_json

_CHUNK = 2**20  # bytes
_ATTEMPTS = 5  # in a row without a new byte
_TIMEOUT = 30  # seconds without a byte
_MOST_MEMBERS = 1_000_000
_MOST_GROWTH = 50  # times the archive's size; photographs hardly compress


@dataclass(frozen=True)
class Archive:
    """A tar archive to fetch.

    checksum: `md5:…` or `sha256:…`; folder: what to unpack it into, below the dataset's folder.
    """

    url: str
    checksum: str
    folder: str = "."

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def locate(self) -> tuple[str, str]:
        """Its address and its checksum."""
        return self.url, self.checksum


@dataclass(frozen=True)
class HubArchive:
    """A tar archive in a dataset on the Hugging Face hub, or on the mirror that HF_ENDPOINT names.

    folder: as of `Archive`.
    """

    repository: str
    name: str
    folder: str

    def locate(self) -> tuple[str, str]:
        """Its address and its checksum, as the hub states them. Raises UserError if it does not.

        Its bytes are fetched as those of any archive: `hf_hub_download` begins anew each time.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(self.repository, self.name, repo_type="dataset")
        try:
            checksum = get_hf_file_metadata(url).etag
        except Exception as error:  # of huggingface_hub, of the HTTP library that it uses, or of the system
            raise UserError(
                f"{url} cannot be reached ({type(error).__name__}): run the same command again when it can, or with "
                "HF_ENDPOINT=<address of a mirror>."
            ) from error
        if not re.fullmatch("[0-9a-f]{64}", checksum or ""):
            raise UserError(f"{url} comes without a checksum, so it cannot be told whether it is whole.")
        return url, f"sha256:{checksum}"


_DOGS = "http://vision.stanford.edu/aditya86/ImageNetDogs"
_SIMS4 = "rocca/sims4-faces"
ARCHIVES: dict[str, tuple[Archive | HubArchive, ...]] = {
    "cub": (
        Archive(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "md5:97eceeb196236b17998738112f37df78",
        ),
    ),
    "dogs": (
        Archive(f"{_DOGS}/images.tar", "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58"),
        Archive(f"{_DOGS}/lists.tar", "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c"),
        Archive(f"{_DOGS}/annotation.tar", "sha256:662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd"),
    ),
    "sims4": (HubArchive(_SIMS4, "masc.tar", folder="masc"), HubArchive(_SIMS4, "fem.tar", folder="fem")),
}


def download(archives: Iterable[Archive | HubArchive], folder: Path) -> None:
    """Fetch and unpack every archive into `folder`; what is there already is kept.

    Raises UserError if one cannot be had whole, is not what its checksum says, or is not safe to unpack.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        done = folder / f".{archive.name}.json"
        if not done.exists():
            path = fetch(archive, folder)
            unpack(path, folder / archive.folder)
            write_json(done, {"name": archive.name})
            path.unlink()


def fetch(archive: Archive | HubArchive, folder: Path) -> Path:
    """Fetch one archive; a download that broke off is gone on with. Returns its verified file."""
    path, partial = folder / archive.name, folder / f".{archive.name}.partial"
    if path.exists():
        return path
    (url, checksum), idle = archive.locate(), 0
    while True:
        had = partial.stat().st_size if partial.exists() else 0
        try:
            if _fetch_rest(url, partial, had):
                break
            reason = "the connection closed early"
        except requests.HTTPError as error:
            raise UserError(f"{url} cannot be fetched: the server answered {error}.") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason = type(error).__name__
        idle = 0 if partial.exists() and partial.stat().st_size > had else idle + 1
        if idle == _ATTEMPTS:
            raise UserError(
                f"{url} cannot be fetched whole ({reason}): run the same command again to go on from what "
                f"has come so far, or unpack the archive into {folder} yourself."
            )
    kind, _, expected = checksum.partition(":")
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected:
        partial.unlink()
        raise UserError(
            f"{url} is not the published archive: its {kind} is {found}, not {expected}. The file was "
            "removed; run the same command again."
        )
    partial.replace(path)
    return path


def _fetch_rest(url: str, partial: Path, had: int) -> bool:
    """Append what is missing to `partial`; returns whether all has come."""
    headers = {"Range": f"bytes={had}-"} if had else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT, allow_redirects=True) as answer:
        if answer.status_code == 416:  # nothing is missing, or the server's file is shorter than ours
            return True
        answer.raise_for_status()
        resumed = answer.status_code == 206
        length = answer.headers.get("Content-Length")
        total = int(length) + (had if resumed else 0) if length else None
        description = url.rsplit("/", 1)[-1]
        start = had if resumed else 0
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm(initial=start, total=total, desc=description, unit="B", unit_scale=True) as progress,
        ):
            # Not iter_content: it waits for a whole chunk, and loses what has come of it when the connection breaks.
            while chunk := answer.raw.read1(_CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    return total is None or partial.stat().st_size >= total


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar archive of plain files and folders; nothing appears in `folder` before all is unpacked.

    Raises UserError for a path outside the folder, a link, a device, or far more than the archive's size.
    """
    staging = folder.parent / f".{path.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    allowed, members = max(_MOST_GROWTH * path.stat().st_size, 2**20), 0
    try:
        with tarfile.open(path) as archive, tqdm(desc=f"unpack {path.name}", unit="file") as progress:
            for member in archive:
                members, allowed = members + 1, allowed - member.size
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"{path} holds {member.name!r}, which is neither a file nor a folder.")
                if allowed < 0 or members > _MOST_MEMBERS:
                    raise UserError(f"{path} unpacks to far more than an archive of pictures does.")
                archive.extract(member, staging, filter="data")
                progress.update()
        folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(staging.iterdir()):
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            entry.replace(target)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} cannot be unpacked ({error}): remove it and run the same command again.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
