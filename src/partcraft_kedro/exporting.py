"""`kedro export`: from a version of the adapter in the catalog to a folder that other programs read."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.project import run
from kedro.io import DataCatalog

from partcraft_kedro.errors import UserError
from partcraft_kedro.export import FORMATS
from partcraft_kedro.weights import is_hub_name

if TYPE_CHECKING:  # what computes is slow to import
    from partcraft_kedro.export.adapter import Adapter
    from partcraft_kedro.export.words import Word


def _hub_name(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    if given and not is_hub_name(given):
        raise click.BadParameter(f"{given!r} is not of the form owner/name", context, parameter)
    return given


@click.command(params=[option for option in run.params if option.name in ("env", "params")])
@click.option("--to", type=click.Path(path_type=Path), required=True, help="A new folder, or an earlier export.")
@click.option("--adapter", help="A version, a folder, or a hub id. Default: the newest version.")
@click.option(
    "--tokens", default="common:10", show_default=True, help="common:N of each part, head:17,wing:3, [1,17], or all."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="all", show_default=True)
@click.option("--push", callback=_hub_name, metavar="OWNER/NAME", help="Upload it to this repository of a hub too.")
@click.option("--public", is_flag=True, help="With --push: let others see it.")
def export(
    env: str | None,
    params: dict,
    to: Path,
    adapter: str | None,
    tokens: str,
    form: str,
    push: str | None,
    public: bool,
) -> None:
    """Write part tokens and LoRA as diffusers alone, AUTOMATIC1111, Forge and ComfyUI read them.

    The folder has a model card with lines to copy, and contact_sheet.html, on which parts are chosen by clicking.
    """
    to = to.expanduser()
    if public and not push:
        raise click.UsageError("--public says who sees what --push uploads: give both.")
    from partcraft_kedro.opening import open_catalog

    _export(open_catalog(env, params), to, adapter, tokens, form, push)
    click.echo(f"Model card: {to / 'README.md'}. To choose parts, open {to / 'contact_sheet.html'}.")
    if push:
        from partcraft_kedro.export.hub import push as upload

        click.echo(f"Uploaded to {upload(to, push, public=public)}")


def _export(catalog: DataCatalog, to: Path, adapter: str | None, tokens: str, form: str, push: str | None) -> None:
    from partcraft_kedro.export.adapter import read_adapter, read_base
    from partcraft_kedro.export.choice import title_of
    from partcraft_kedro.export.folder import programs_for, refuse_folder, write_export
    from partcraft_kedro.model.partcraft import refuse_other_base
    from partcraft_kedro.opening import adapters_of, choose_adapter

    options = catalog.load("parameters")
    refuse_folder(to)
    found = choose_adapter(adapters_of(catalog), adapter)
    if found is None:
        raise UserError("There is no adapter yet: train one, kedro run --pipelines=train.")
    chosen = read_adapter(found)
    title = title_of(catalog.load("params:stages").dataset)
    programs_for(chosen, title, form)
    base = options["base"]
    refuse_other_base(base.model, base.config, chosen.settings, chosen.folder)
    read = replace(read_base(base.model, base.config), side=chosen.settings["size"])  # that it was trained at
    words = _words(chosen, tokens, title)
    write_export(to, chosen, read, title, words, form, options["generate"].sampling, push)


def _words(adapter: "Adapter", asked: str, title: str) -> "list[Word]":
    """The words that are asked for, with the names, counts and crops that the adapter carries."""
    from partcraft_kedro.export.choice import choose_tokens, words_of
    from partcraft_kedro.export.words import Word
    from partcraft_kedro.parts.sheet import PARTS, read_sheet

    sheet = read_sheet(adapter.folder / PARTS)
    names, counts = sheet.names, sheet.counts
    tokens = choose_tokens(asked, names, counts)
    return [
        Word(token, word, names[token.part], int(counts[token.part][token.variant]), sheet.crop(*token))
        for token, word in zip(tokens, words_of(tokens, title, names, counts), strict=True)
    ]
