"""Pages and cards, filled in from the templates that lie beside the modules that fill them."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def load_template(path: Path) -> Template:
    """A template `<name>.html.j2`, in which what is filled in is text and no markup, or `<name>.md.j2`.

    To fill in nothing for one of its names is an error.
    """
    templates = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=path.name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=path.name.endswith(".md.j2"),
    )
    return templates.get_template(path.name)
