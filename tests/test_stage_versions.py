"""The tripwire of versions: what a stage computes changes unnoticed by its key, unless its version is raised.

`python tests/test_stage_versions.py` notes what stands in the code now.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
from test_architecture import name_of, reachable_from
from test_stages import declared

BOOK = Path(__file__).with_name("stage_versions.json")


def digest(work: str) -> str:
    """Of all code of the package that a stage's work reaches, but for comments and docstrings."""
    module = Path(sys.modules[resolve_name(work).__module__].__file__)
    code = hashlib.sha256()
    for path in sorted(reachable_from(module)):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = [part for part in node.body if not _is_text(part)]
        code.update(f"{name_of(path)}\n{ast.dump(tree)}\n".encode())
    return code.hexdigest()[:16]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def noted() -> dict[str, dict]:
    return {name: {"version": stage.version, "code": digest(stage.work)} for name, stage in declared().items()}


@pytest.mark.parametrize("name", sorted(declared()))
def test_a_stage_s_code_is_that_of_its_version(name: str) -> None:
    stage = declared()[name]
    assert json.loads(BOOK.read_text()).get(name) == {"version": stage.version, "code": digest(stage.work)}, (
        f"Code that {stage.work} reaches has changed. If it makes something else of the same arguments, raise the "
        f"version of the stage {name!r}; then run `python tests/test_stage_versions.py`."
    )


def test_code_counts_and_words_do_not(tmp_path, monkeypatch) -> None:
    module = tmp_path / "work_of_a_test.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("test_stage_versions.reachable_from", lambda path: {path})
    monkeypatch.setattr("test_stage_versions.name_of", lambda path: path.name)
    texts = [
        "def work(place):\n    return 1\n",
        'def work(place):\n    "Words."\n    return 1  # more\n',
        "def work(place):\n    return 2\n",
    ]
    found = []
    for text in texts:
        module.write_text(text)
        found.append(digest("work_of_a_test.work"))
    assert found[0] == found[1] != found[2]


if __name__ == "__main__":
    BOOK.write_text(json.dumps(noted(), indent=2, sort_keys=True) + "\n")
