"""The wall: the library's rooms know neither Kedro nor MLflow, and none knows a later one."""

import ast
from pathlib import Path

import pytest
from plan import ROOMS

import partcraft_kedro

PACKAGE = Path(partcraft_kedro.__file__).parent
MODULES = sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py"))


def imports_of(path):
    """Every dotted name that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(PACKAGE.parent).parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [package, node.module]))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def own_files(names):
    """The package's files among imported names."""
    for name in names:
        if name.startswith("partcraft_kedro."):
            path = PACKAGE.joinpath(*name.split(".")[1:])
            yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists())


def reachable_from(path):
    """A module and all of the package that it imports, directly or through others."""
    seen, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting.extend(own_files(imports_of(file)))
    return seen


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def test_every_room_has_modules():
    assert {name_of(path).split("/")[0] for path in MODULES} == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_reaches_neither_kedro_nor_mlflow(path):
    for file in reachable_from(path):
        tops = {name.split(".")[0] for name in imports_of(file)}
        assert not tops & {"kedro", "kedro_datasets", "kedro_mlflow", "mlflow"}, name_of(file)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_room_imports_a_later_one_or_the_project(path):
    room = path.relative_to(PACKAGE).parts[0]
    closed = {*ROOMS[ROOMS.index(room) + 1 :], "pipelines", "datasets", "hooks", "cli", "settings", "pipeline_registry"}
    imported = {name.split(".")[1] for name in imports_of(path) if name.startswith("partcraft_kedro.")}
    assert not imported & closed
