"""A Kedro project for tests to run in."""

import shutil
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def lay_out(folder: Path) -> None:
    """Make a folder a Kedro project of the package that is installed: what it runs leaves nothing outside."""
    shutil.copytree(PROJECT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    (folder / "src").mkdir()
    shutil.copy(PROJECT / "pyproject.toml", folder)
