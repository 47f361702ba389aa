"""What the site has beside docs/*.md: README and its like, the option reference, the API reference.

mkdocs.yml names this file as a hook. Nothing is written twice: pages are made of the files that say it already.
"""

import ast
import inspect
import posixpath
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from partcraft_kedro.methods import METHODS
from partcraft_kedro.options import GROUPS, SweepOptions

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "src" / "partcraft_kedro"
COPIED = {
    "index.md": "README.md",
    "tiny.md": "src/partcraft_kedro/tiny/README.md",
    "samples.png": "src/partcraft_kedro/tiny/samples.png",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages and pictures of the site that lie elsewhere in the repository."""
EXPLAINED = {
    "src/partcraft_kedro/options.py": "options.md",
    "conf/base/sweeps.yml": "options.md#sweeps",
    "src/partcraft_kedro/methods.py": "methods.md",
    "src/partcraft_kedro/images": "api/images.md",
    "src/partcraft_kedro/pretraining": "api/pretraining.md",
}
"""Files and folders that the site has no copy of, and where it says what is in them."""
SHARED = (
    "allocator",
    "devices",
    "errors",
    "figure_style",
    "files",
    "methods",
    "passes",
    "randomness",
    "stages",
    "templates",
    "weights",
)
"""Modules beside the rooms that the rooms use, and that know neither Kedro nor MLflow."""
OF_THE_PROJECT = ("pipelines", "datasets", "sweeps")
"""Folders of the package that are no room of the library: they know Kedro and MLflow."""
ENVIRONMENTS = sorted({path.parent.name for path in PROJECT.glob("conf/*/parameters.yml")} - {"base", "local", "test"})
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made, and those that lie elsewhere."""
    from mkdocs.structure.files import File

    made = {"options.md": option_reference(), **api_reference()}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    for uri, source in COPIED.items():
        files.append(File.generated(config, uri, abs_src_path=str(PROJECT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let a page's links lead to pages of the site."""
    uri = page.file.src_uri
    return mend_links(markdown, COPIED.get(uri, f"docs/{uri}"), uri)


def mend_links(markdown: str, source: str, uri: str) -> str:
    """Links of a file in the repository, as the page `uri` of the site must have them.

    A link to a file that the site neither has nor explains becomes plain text.
    """
    pages = {path: page for page, path in COPIED.items()}

    def mend(link: re.Match) -> str:
        picture, text, target = link.groups()
        path, hash_, heading = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path.startswith("docs/") and not path.endswith(".py"):
            page = path.removeprefix("docs/")
        elif path in pages or path in EXPLAINED:
            page = pages.get(path) or EXPLAINED[path]
        else:
            return text
        relative = posixpath.relpath(page, posixpath.dirname(uri) or ".")
        return f"{picture}[{text}]({relative}{hash_}{heading})"

    return _LINK.sub(mend, markdown)


def option_reference() -> str:
    """A table for each group of options: name, value in conf/base or else the default, what it is, type and bounds."""
    values = yaml.safe_load((PROJECT / "conf/base/parameters.yml").read_text())
    lines = [
        "# Options",
        "",
        "Made from `src/partcraft_kedro/options.py`, which says what each option is and has its default, and from "
        "`conf/base/parameters.yml`, which has its value for drawn creatures where that is another. "
        "`--params train.steps=200` gives a value for one run; an environment "
        "(`--env=cub`) changes [several at once](#what-environments-change). A misspelt option or a value out of "
        "bounds is refused before anything runs.",
    ]
    for name, group in GROUPS.items():
        lines += ["", f"## {name}", "", inspect.getdoc(group) or "", "", *_table(group, name, values.get(name, {}))]
    lines += ["", "## Sweeps", "", "What a sweep in `conf/<env>/sweeps.yml` may have; none is an option of a run.", ""]
    lines += [*_table(SweepOptions, "", {}), "", "The sweeps that there are:", ""]
    lines += ["```yaml", (PROJECT / "conf/base/sweeps.yml").read_text().strip(), "```"]
    lines += ["", "## What environments change", "", "`--env=test`, the smallest run, is left out here."]
    for environment in ENVIRONMENTS:
        content = (PROJECT / "conf" / environment / "parameters.yml").read_text().strip()
        lines += ["", f"### {environment}", "", "```yaml", content, "```"]
    return "\n".join(lines) + "\n"


def _table(group: type[BaseModel], prefix: str, values: dict[str, Any]) -> list[str]:
    lines = ["| option | value | what it is |", "|---|---|---|"]
    return lines + _rows(group.model_json_schema(), {}, prefix, values)


def _rows(schema: dict, known: dict, prefix: str, values: dict[str, Any]) -> list[str]:
    """A line for each option of a group's JSON schema; known: the schemas of groups within groups, by name."""
    known, rows = known | schema.get("$defs", {}), []
    for name, field in schema["properties"].items():
        option = f"{prefix}.{name}".strip(".")
        described = " ".join(field.get("description", "").split()).replace("|", "\\|")
        if "$ref" in field:
            rows.append(f"| `{option}` | | {described} |")
            inner = known[field["$ref"].rpartition("/")[2]]
            rows += _rows(inner, known, option, values.get(name, {}))
            continue
        value = _value(values[name]) if name in values else _value(field["default"]) if "default" in field else ""
        if prefix == "train" and name in METHODS["partcraft"]:
            value = "[as the method has it](methods.md)"
        kind = _kind(field)
        rows.append(f"| `{option}` | {value} | {described}<br><small>{kind[0].upper()}{kind[1:]}.</small> |")
    return rows


def _value(value: Any) -> str:
    """A value as YAML has it."""
    if value is None:
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        text = f"{value:g}"
    return f"`{text}`" if text else '`""`'


def _kind(field: dict) -> str:
    """A JSON schema's type and bounds, in words."""
    if "anyOf" in field:
        return " or ".join(_kind(kind) for kind in field["anyOf"])
    if "enum" in field or "const" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = field.get("type", "any value")
    if kind == "array":
        items = field.get("items") or {}
        return f"list, each {_kind(items)}" if "type" in items else "list"
    words = {"object": "mapping", "boolean": "true or false", "null": "none"}
    words["string"] = "path" if field.get("format") == "path" else "text"
    least, above = field.get("minimum"), field.get("exclusiveMinimum")
    if kind == "integer" and above is not None:
        least, above = above + 1, None
    bounds = [
        *([f"from {least:g}"] if least is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"to {field['maximum']:g}"] if "maximum" in field else []),
        *([f"below {field['exclusiveMaximum']:g}"] if "exclusiveMaximum" in field else []),
    ]
    return " ".join([words.get(kind, kind), *bounds])


def api_reference() -> dict[str, str]:
    """A page for each room of the library, and one for the modules that they share."""
    rooms = sorted(path.parent for path in PACKAGE.glob("*/__init__.py") if path.parent.name not in OF_THE_PROJECT)
    pages = {}
    for room in rooms:
        modules = [path.stem for path in sorted(room.glob("*.py")) if path.stem != "__init__"]
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
        pages[f"api/{room.name}.md"] = _api_page(room.name, text or "", [f"{room.name}.{name}" for name in modules])
    pages["api/shared.md"] = _api_page("Shared by the rooms", "Modules that several rooms use.", list(SHARED))
    return pages


def _api_page(title: str, text: str, modules: list[str]) -> str:
    return "\n\n".join([f"# {title}", text, *(f"::: partcraft_kedro.{module}" for module in modules)]) + "\n"
