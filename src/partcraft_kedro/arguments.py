"""The values of commands' options, out of the texts that people type."""

import re
from pathlib import Path
from typing import Any, get_args

import click
import yaml

from partcraft_kedro.options import GROUPS


def params(context: click.Context, parameter: click.Parameter, given: str | dict) -> dict[str, Any]:
    """`train.rank=2,images.folder=/my pictures, all` as a tree of options: only a comma before the next option ends a
    value. A dictionary is from `--config`."""
    if isinstance(given, dict):
        return given
    tree: dict[str, Any] = {}
    for item in re.split(r",(?=\s*[\w.]+\s*=)", given) if given else []:
        option, equals, text = (part.strip() for part in item.partition("="))
        if not (option and equals):
            raise click.BadParameter(f"{item!r} is not of the form train.steps=200", context, parameter)
        *groups, name = option.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
            if not isinstance(branch, dict):
                raise click.BadParameter(f"{group} has both a value and options of its own", context, parameter)
        branch[name] = _value(option, text, context, parameter)
    return tree


def load_versions(context: click.Context, parameter: click.Parameter, given: str | None) -> dict[str, str]:
    """`adapter:me/birds` as {"adapter": "me/birds"}: Kedro takes nothing with a slash for a version."""
    versions = {}
    for item in given.split(",") if given else []:
        name, _, version = (part.strip() for part in item.partition(":"))
        if not (name and version):
            raise click.BadParameter(f"{item!r} is not of the form adapter:<version>", context, parameter)
        versions[name] = version
    return versions


def _value(option: str, text: str, context: click.Context, parameter: click.Parameter) -> Any:
    """What is meant by an option's value: names and paths are as they stand, all else is YAML."""
    if _is_text(option) and text != "null":
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise click.BadParameter(f"{option}={text} has a value that cannot be read", context, parameter) from error


def _is_text(option: str) -> bool:
    """Whether an option's value may be any text, such as a path."""
    group, *names = option.split(".")
    kind: Any = GROUPS.get(group)
    for name in names:
        field = getattr(kind, "model_fields", {}).get(name)
        kind = field.annotation if field else None

    def types(annotation: Any) -> set[Any]:
        return {annotation}.union(*map(types, get_args(annotation)))

    return bool({str, Path} & types(kind))


def grid(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, list]:
    """`train.rank=2,4` as {"train.rank": [2, 4]}."""
    grid = {}
    for item in given:
        option, _, values = (part.strip() for part in item.partition("="))
        if not option or not all(value.strip() for value in values.split(",")):
            raise click.BadParameter(f"{item!r} is not of the form train.rank=2,4,8", context, parameter)
        if option in grid:
            raise click.BadParameter(f"{option} is given twice", context, parameter)
        grid[option] = [_value(option, value.strip(), context, parameter) for value in values.split(",")]
    return grid


def seeds(context: click.Context, parameter: click.Parameter, given: str | None) -> list[int]:
    seeds = given.split(",") if given else []
    if not all(seed.strip().isdecimal() for seed in seeds):
        raise click.BadParameter(f"{given!r} is not of the form 0,1,2", context, parameter)
    return [int(seed) for seed in seeds]


def share(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """`3/8` as (3, 8)."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    share, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= share <= of:
        raise click.BadParameter(f"{given!r} is not of the form 3/8", context, parameter)
    return share, of
