"""The Kedro project that the package works in: a clone of the repository, or a folder that `lay_out` made."""

import shutil
from pathlib import Path

import kedro
from kedro.utils import find_kedro_project

from partcraft_kedro.errors import UserError

_CONF = Path(__file__).parent / "conf"  # in a clone a link to where it lies
_PYPROJECT = """\
[tool.kedro]
package_name = "partcraft_kedro"
project_name = "partcraft-kedro"
kedro_init_version = "{version}"
source_dir = "src"
"""


def project_folder() -> Path:
    """The Kedro project in or above the working directory, as Kedro finds it; the package may lie elsewhere."""
    return find_kedro_project(Path.cwd()) or Path.cwd()


def stages_of_outputs() -> dict[str, str]:
    """The stage that makes each dataset, by the dataset's name."""
    from kedro.framework.project import pipelines

    return {output: tag for node in pipelines["__default__"].nodes for output in node.outputs for tag in node.tags}


def lay_out(folder: Path) -> None:
    """Make a new or empty folder a Kedro project of the installed package, with settings of its own.

    Raises UserError if there is something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: give a new folder, or an empty one.")
    shutil.copytree(_CONF, folder / "conf", ignore=shutil.ignore_patterns("local"))
    for name in ("conf/local", "src", "data"):
        (folder / name).mkdir()
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(version=kedro.__version__))
