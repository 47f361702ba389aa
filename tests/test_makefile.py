"""Which Python `make` sets the environment up with."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

UNSUPPORTED = "#!/bin/sh\nexit 1\n"  # what one says that is asked whether it is supported
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.fixture
def make(tmp_path):
    """Runs `make` with nothing on the PATH but the scripts it is given, by name: None for a Python that will do."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "cat", "test"):
        (programs / name).symlink_to(shutil.which(name))
    shutil.copy(PROJECT / "Makefile", tmp_path)

    def run(*arguments: str, **pythons: str | None) -> subprocess.CompletedProcess:
        for name, script in pythons.items():
            path = programs / name.replace("_", ".")
            path.write_text(script or f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            path.chmod(0o755)
        return subprocess.run(
            [programs / "make", *arguments], cwd=tmp_path, env={"PATH": str(programs)}, text=True, capture_output=True
        )

    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    return run


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3_12": None}, "python3.12"),
        ({"python3_12": None, "python3_11": None}, "python3.11"),
        ({"python3_11": UNSUPPORTED, "python3_12": None}, "python3.12"),
        ({"python3": None}, "python3"),
    ],
)
def test_whichever_python_is_supported_is_taken(make, there: dict, taken: str) -> None:
    assert f"{taken} -m venv" in make("-n", ".venv/.ready", **there).stdout


def test_python_may_be_named(make) -> None:
    assert "/my/python -m venv" in make("-n", ".venv/.ready", "PYTHON=/my/python", python3_12=None).stdout


@pytest.mark.parametrize(
    ("named", "told"), [((), "python3.11 python3.12 python3 python"), (("PYTHON=/my/python",), "/my/python")]
)
def test_without_a_supported_one_a_sentence_says_so(make, named, told) -> None:
    result = make(".venv/.ready", *named, python3=UNSUPPORTED)
    assert result.returncode != 0
    assert result.stdout.startswith(f"Python 3.11 or 3.12 with venv is needed, and was looked for as {told}: ")


def test_an_environment_of_another_place_is_made_anew(make, tmp_path) -> None:
    ready = tmp_path / ".venv" / ".ready"
    ready.parent.mkdir()
    ready.write_text("/where/it/was\n")
    assert "python3.11 -m venv --clear" in make("-n", ".venv/.ready", python3_11=None).stdout
    ready.write_text(f"{Path(tmp_path)}\n")
    assert "up to date" in make("-n", ".venv/.ready", python3_11=None).stdout
