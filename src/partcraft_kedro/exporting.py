"""`kedro export`: from a version of the adapter in the catalog to a folder that other programs read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from kedro.framework.cli.project import run
from kedro.io import DataCatalog

from partcraft_kedro.errors import UserError
from partcraft_kedro.export import FORMATS
from partcraft_kedro.export.finding import is_hub_name
from partcraft_kedro.files import fingerprint_of

if TYPE_CHECKING:  # what computes is slow to import
    from partcraft_kedro.export.adapter import Adapter
    from partcraft_kedro.export.words import Word
    from partcraft_kedro.stages import Stages


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

    stages, options = catalog.load("params:stages"), catalog.load("parameters")
    refuse_folder(to)
    found = choose_adapter(adapters_of(catalog), adapter)
    if found is None:
        raise UserError("There is no adapter yet: train one, kedro run --pipelines=train.")
    chosen = read_adapter(found)
    title = title_of(stages.dataset)
    programs_for(chosen, title, form)
    base = options["base"]
    refuse_other_base(base.model, base.config, chosen.settings, chosen.folder)
    read = replace(read_base(base.model, base.config), side=chosen.settings["size"])  # that it was trained at
    words = _words(catalog, stages, chosen, tokens, title)
    write_export(to, chosen, read, title, words, form, options["generate"].sampling, push)


def _words(catalog: DataCatalog, stages: "Stages", adapter: "Adapter", asked: str, title: str) -> "list[Word]":
    """The words that are asked for, with the crops and counts of the training pictures.

    Raises UserError if what lies in the catalog are not the parts that the adapter was trained on.
    """
    from partcraft_kedro.export.choice import choose_tokens, count_variants, words_of
    from partcraft_kedro.export.contact_sheet import typical_crops
    from partcraft_kedro.export.words import Word
    from partcraft_kedro.parts.label_maps import load_label_maps

    _refuse_other_parts(catalog, stages, adapter)
    records, codes, names = (catalog.load(name) for name in ("records", "codes", "part_names"))
    trained = (records["split"] == "train").to_numpy()
    code, cosine = np.stack(codes["code"][trained]), np.stack(codes["cosine"][trained])
    counts = count_variants(code, adapter.settings["variants"])
    tokens = choose_tokens(asked, list(names.values()), counts)
    paths = [stages.root / path for path in records["path"][trained]]
    crops = typical_crops(tokens, paths, code, cosine, load_label_maps(catalog.load("part_masks"))[trained])
    return [
        Word(token, word, names[token.part], int(counts[token.part][token.variant]), crop)
        for token, word, crop in zip(tokens, words_of(tokens, title, list(names.values()), counts), crops, strict=True)
    ]


def _refuse_other_parts(catalog: DataCatalog, stages: "Stages", adapter: "Adapter") -> None:
    """Raise UserError if an adapter's tokens stand for other parts than those that lie in the catalog: names, crops and
    counts would be wrong.

    The stage that trained it tells of which prompts; where that is not here, numbers of parts and variants must do.
    """
    predictor = json.loads((catalog.load("part_predictor") / "part_predictor.json").read_text())
    stage = stages.layer("06_models") / f"training-{adapter.settings['training'].get('fingerprint')}" / "stage.json"
    same = predictor["variants"] == adapter.settings["variants"]
    if same and stage.exists():
        same = json.loads(stage.read_text())["seen"]["prompts"] == fingerprint_of(catalog.load("prompts"))
    if not same:
        raise UserError(
            f"The adapter {adapter.folder} was trained on other parts than those found last: run the stages parts and "
            "prompts again with its options (--pipelines=prompts), or choose another adapter."
        )
