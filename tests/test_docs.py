"""What the documentation says of the code is so: the plan, the option reference, every path and link."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import plan
import pytest
import site_pages
import yaml
from click.testing import CliRunner
from kedro.framework.cli.cli import KedroCLI
from pydantic import BaseModel

from partcraft_kedro.options import GROUPS

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((PROJECT / "docs").glob("*.md"))
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#\s]+)[^)\s]*\)")


def test_the_plan_is_up_to_date() -> None:
    assert plan.PLAN.read_text() == plan.draw(), "run: python docs/plan.py"


def test_the_plan_has_every_room_and_pipeline() -> None:
    folders = {path.parent.name for path in plan.PACKAGE.glob("*/__init__.py")}
    assert set(plan.ROOMS) == folders - set(site_pages.OF_THE_PROJECT)
    assert set(plan.PIPELINES) == {path.parent.name for path in plan.PACKAGE.glob("pipelines/*/pipeline.py")}


@pytest.mark.parametrize("name", plan.PIPELINES)
def test_pipelines_leave_what_the_plan_says(name: str) -> None:
    pipeline = importlib.import_module(f"partcraft_kedro.pipelines.{name}.pipeline").create_pipeline()
    outputs = pipeline.all_outputs()
    for dataset in plan.PIPELINES[name].split(", "):
        if dataset == "figures":
            assert any(output.endswith("_figure") for output in outputs)
        else:
            assert dataset in outputs


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(page: Path) -> None:
    pages_made = {"options.md", *(f"api/{room}.md" for room in (*plan.ROOMS, "shared"))}
    for target in LINK.findall(page.read_text()):
        made = page.parent.name == "docs" and target in pages_made
        assert made or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_paths_that_are_named_exist(page: Path) -> None:
    top = ("src/", "tests/", "conf/", "docs/", "benchmarks/", "notebooks/", ".github/", ".ci/")
    for code in CODE.findall(page.read_text()):
        if code.startswith(top) and not set("<*{… ") & set(code):
            assert (PROJECT / code).exists(), code


def lines_of(page: Path, language: str) -> Iterator[str]:
    """The lines of a page's blocks of code, without comments."""
    for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        yield from (line.partition("  #")[0].strip() for line in block.splitlines())


@pytest.mark.slow  # loads Kedro's command line
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_are_such_as_there_are(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    options = {option for name, group in GROUPS.items() for option in leaves(group, name)}
    environments = {path.name for path in (PROJECT / "conf").iterdir()}
    for line in lines_of(page, "console"):
        program, *arguments = shlex.split(line) or [""]
        if program == "make":
            assert arguments[0] in targets, line
        if program in ("kedro", ".venv/bin/kedro"):
            told = CliRunner().invoke(KedroCLI(PROJECT), [*arguments, "--help"])  # which comes before any value
            assert told.exit_code == 0 and told.output.startswith("Usage: "), line
            assert set(re.findall(r"--env=(\w+)", line)) <= environments, line
            assert set(re.findall(r"--pipelines=(\w+)", line)) <= {*plan.PIPELINES, "download"}, line
            assert set(re.findall(r"[ ,](\w+\.\w+(?:\.\w+)*)=", line)) <= options, line


@pytest.mark.slow  # imports all that the library has
def test_the_readme_is_short_and_its_python_is_what_the_library_has() -> None:
    readme = PROJECT / "README.md"
    assert len(readme.read_text().split()) < 1500
    for line in lines_of(readme, "python"):
        if line.startswith(("from ", "import ")):
            exec(line)


def leaves(group: type[BaseModel], prefix: str) -> list[str]:
    names = []
    for name, field in group.model_fields.items():
        inner = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        names += leaves(field.annotation, f"{prefix}.{name}") if inner else [f"{prefix}.{name}"]
    return names


def test_every_option_is_in_the_reference_once_with_its_value() -> None:
    rows = [line.split(" | ") for line in site_pages.option_reference().splitlines() if line.startswith("| `")]
    shown = {name.strip("| `"): value for name, value, *_ in rows if "." in name}
    options = [option for name, group in GROUPS.items() for option in leaves(group, name)]
    assert [option for option in shown if option != "generate.sampling"] == options
    parameters = yaml.safe_load((PROJECT / "conf/base/parameters.yml").read_text())
    for name in ("steps", "warmup_steps", "checkpoint_every"):
        assert shown[f"train.{name}"] == f"`{parameters['train'][name]}`"
    assert (shown["images.folder"], shown["generate.sampling.compile"]) == ("none", "`false`")


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("parts.parts", "Integer from 1 to 254."),
        ("features.layer", "Integer from 1 or none."),
        ("train.learning_rate", "Number above 0."),
        ("train.average", "Number above 0 below 1 or none."),
        ("generate.split", "One of `train`, `test`."),
        ("generate.transferred", "List, each text."),
        ("images.labels", "Path or none."),
    ],
)
def test_types_and_bounds_are_in_words(option: str, kind: str) -> None:
    (row,) = [line for line in site_pages.option_reference().splitlines() if line.startswith(f"| `{option}` |")]
    assert row.endswith(f"<small>{kind}</small> |")


@pytest.mark.parametrize(
    ("link", "source", "page", "mended"),
    [
        ("[m](docs/methods.md)", "README.md", "index.md", "[m](methods.md)"),
        ("![p](docs/plan.svg)", "README.md", "index.md", "![p](plan.svg)"),
        ("[o](src/partcraft_kedro/options.py)", "README.md", "index.md", "[o](options.md)"),
        ("[o](../src/partcraft_kedro/options.py)", "docs/methods.md", "methods.md", "[o](options.md)"),
        ("[r](../README.md#experiments)", "docs/methods.md", "methods.md", "[r](index.md#experiments)"),
        ("[t](tests/conftest.py)", "README.md", "index.md", "t"),
        ("[k](https://kedro.org) [h](#here)", "README.md", "index.md", "[k](https://kedro.org) [h](#here)"),
        ("[m](../docs/methods.md)", "src/card.md", "api/card.md", "[m](../methods.md)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(link: str, source: str, page: str, mended: str) -> None:
    assert site_pages.mend_links(link, source, page) == mended


def test_the_library_has_a_page_for_each_room_that_the_site_lists() -> None:
    pages = site_pages.api_reference()
    assert pages.keys() == {f"api/{name}.md" for name in (*plan.ROOMS, "shared")}
    assert "::: partcraft_kedro.parts.kmeans\n" in pages["api/parts.md"]
    listed = (PROJECT / "mkdocs.yml").read_text()
    assert all(page in listed for page in pages)
