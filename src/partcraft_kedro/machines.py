"""What machines that work on one run have in common: code, packages, and what the environment says of the run."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from partcraft_kedro.files import digest_of, fingerprint_of
from partcraft_kedro.weights import TINY

_DISTRIBUTION = "partcraft-kedro"
# Of variables, by how they begin: those of this project, of its pipelines and runs; where models come from, and whether
# a hub is asked; and what changes how a processor or a GPU rounds.
_SHARED = (
    *("PARTCRAFT_", "KEDRO_", "MLFLOW_", "DO_NOT_TRACK"),
    *("HF_", "HUGGING_FACE_", "TRANSFORMERS_"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_", "CUBLAS_WORKSPACE_CONFIG", "ATEN_CPU_CAPABILITY", "MKL_CBWR"),
)


def shared_variables() -> dict[str, str]:
    """The variables of this process's environment that others of its run go by too: what the user has set, or a check
    of the run, such as HF_HUB_OFFLINE.

    Tokens are among them: they are for processes alone, and no log.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(_SHARED)}


def installed() -> dict[str, str]:
    """The versions of Python, of this code and its embedded model, by their content, and of the packages needed."""
    package = Path(__file__).parent
    files = [*package.rglob("*.py"), *TINY.rglob("*.safetensors")]
    content = {path.relative_to(package).as_posix(): digest_of(path) for path in files}
    needed = [
        requirement for requirement in importlib.metadata.requires(_DISTRIBUTION) or () if "extra" not in requirement
    ]
    names = [match[0] for match in map(re.compile(r"[\w.-]+").match, needed) if match]
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "partcraft_kedro": fingerprint_of(content)} | versions


def other_version(expected: dict[str, str]) -> str | None:
    """What is installed here in another version than there, as the rest of a sentence; None: nothing."""
    found = installed()
    for name, version in expected.items():
        if found.get(name) != version:
            return f"has {name} {found.get(name, 'not')} and not {version}"
    return None
