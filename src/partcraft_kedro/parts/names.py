"""Human names of discovered parts, in figures and in prompts."""

import re
from pathlib import Path

import yaml

from partcraft_kedro.errors import UserError, first_line

_USABLE = re.compile(r"[^\W\d_][\w '-]{0,39}")  # what fits between `<` and `:` of a token, and under a figure


def complete_names(count: int, known: dict[int, str]) -> list[str]:
    """One name for each of `count` labels, background first: the known one, else `part <m>`, none twice.

    Of several labels known by one name the later ones are numbered: `head`, `head 2`.
    """
    names: list[str] = []
    for label in range(count):
        name = known.get(label, "background" if label == 0 else f"part {label}")
        copies = sum(re.fullmatch(re.escape(name) + r"( \d+)?", other) is not None for other in names)
        names.append(f"{name} {copies + 1}" if copies else name)
    return names


def read_names(path: Path, count: int) -> dict[int, str]:
    """A YAML file of names, `1: head`, for some or all of `count` labels.

    Raises UserError if it is no such file, or names a label that is not there, or gives one name twice.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"parts.names={path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"parts.names={path} should have lines such as `1: head`.")
    for label, name in content.items():
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < count:
            raise UserError(f"parts.names={path} names part {label!r}, but parts go from 0 to {count - 1}.")
        if not isinstance(name, str) or not _USABLE.fullmatch(name):
            raise UserError(f"parts.names={path} calls part {label} {name!r}: a name is a letter, then at most 39 "
                            "letters, digits, spaces, ' and -.")  # fmt: skip
    repeated = [name for name in content.values() if list(content.values()).count(name) > 1]
    if repeated:
        raise UserError(f"parts.names={path} gives the name {repeated[0]!r} to several parts.")
    return content
