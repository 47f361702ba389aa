"""Finding models: shipped with the package, in a local folder, or on a hub."""

from pathlib import Path

from partcraft_kedro.errors import UserError
from partcraft_kedro.stages import fingerprint_of

TINY = Path(__file__).parent / "tiny"


def resolve_model(name: str, component: str, option: str) -> str:
    """The folder or hub id that `from_pretrained` should load.

    name: `tiny` (the embedded model's `component`), a folder that exists, or a hub id `owner/model`.
    Raises UserError, naming the option, if it is none of these.
    """
    if name == "tiny":
        return str(TINY / component)
    if Path(name).is_dir():
        return name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise UserError(
        f"{option}={name!r} is neither 'tiny', nor a folder that exists, nor a hub id such as 'owner/model': "
        "download the model into a folder and give that folder's path."
    )


def model_fingerprint(name: str, component: str, option: str) -> str:
    """What a stage's key says of a model: the digest of its files where they are local, else its hub id."""
    resolved = resolve_model(name, component, option)
    return fingerprint_of(Path(resolved)) if Path(resolved).is_dir() else resolved
