"""The project's commands: Kedro's own and its plugins', `new`, `sweep`, `export`; a user's mistake is one sentence."""

import os
import re
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
from kedro.framework.cli.cli import project_commands
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import CONTEXT_SETTINGS, load_entry_points

from partcraft_kedro import arguments, options
from partcraft_kedro.errors import UserError
from partcraft_kedro.exporting import export
from partcraft_kedro.mistakes import plainly
from partcraft_kedro.options import GROUPS
from partcraft_kedro.project import lay_out, project_folder
from partcraft_kedro.stopping import end_at_ctrl_c, stoppable
from partcraft_kedro.torchrun import follow, is_follower, leading


class _Commands(click.Group):
    """This project's commands and, in front of Kedro's and its plugins', the same ones that tell mistakes plainly."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if is_follower():
            return follow
        found = super().get_command(context, name)
        for group in (*load_entry_points("project"), project_commands):
            found = found or group.get_command(context, name)
        return found and plainly(found)


@click.group(cls=_Commands, context_settings=CONTEXT_SETTINGS, name="partcraft-kedro")
def cli() -> None:
    """PartCraft: discover parts, learn them, recompose them, measure the result."""


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Begin a project in FOLDER, with settings, data and runs of its own.

    In it `kedro run` and all else work as in a clone of the repository.
    """
    lay_out(folder)
    click.echo(f"Settings are in {folder / 'conf'}. Change into {folder}, then: kedro run")


@cli.command(params=[option for option in run.params if option.name in ("env", "params")])
@click.argument("names", nargs=-1)
@click.option(
    "--grid", "-g", multiple=True, callback=arguments.grid, help="An option's values: train.rank=2,4,8. Repeatable."
)
@click.option("--seeds", callback=arguments.seeds, help="Values of train.seed, 0,1,2 unless conf/ says otherwise.")
@click.option("--parallel", type=click.IntRange(min=1), help="Points at once; default: one on each GPU, else one.")
@click.option(
    "--only", callback=arguments.share, help="A share of the points: 3/8 is the third of eight, for job arrays."
)
@stoppable()
def sweep(
    names: tuple[str, ...],
    env: str | None,
    params: dict,
    grid: dict,
    seeds: list[int],
    parallel: int | None,
    only: tuple[int, int] | None,
) -> None:
    """Run a grid of options and seeds, and report on it.

    NAMES are sweeps that conf/<env>/sweeps.yml describes: attention_weight (the default; the paper's Tab. 1 and
    Fig. 5), methods, break_a_scene. With --grid, the name of a sweep of your own.

    Points that are done are not run again: a sweep that was killed, or had points that failed, goes on by the same
    command. Every point is a child of one MLflow run. Several commands may run one sweep at once, each point is run by
    one of them; with --only each takes its share.
    """
    from partcraft_kedro.console import print_sweep
    from partcraft_kedro.sweeps.plan import plan_sweep
    from partcraft_kedro.sweeps.run import run_sweep

    if grid and len(names) > 1:
        raise click.UsageError("--grid is one sweep: give it one name, or none.")
    if wrong := [name for name in names if not re.fullmatch(r"[\w-]+", name)]:
        raise click.UsageError(f"{wrong[0]!r} is no name for a sweep: take letters, digits, - and _.")
    default = "-".join(["grid", *(option.rpartition(".")[2] for option in grid)]) if grid else "attention_weight"
    plans = [plan_sweep(name, grid, seeds, env, params) for name in names or [default]]
    failures = []
    for plan in plans:
        try:
            folder = run_sweep(plan, parallel, only)
        except UserError as error:  # the next sweep does not depend on this one
            failures.append(str(error))
            continue
        if folder is None:
            click.echo(f"{plan.name}: this share is done; the report is made with the last one.")
            continue
        print_sweep(folder)
        click.echo(f"Tables, figures, and the run behind each number: {folder / 'experiments.html'}")
    if failures:
        raise UserError(" ".join(failures))


@cli.command(params=[option for option in run.params if option.name in ("env", "params")])
@click.option("--adapter", help="A version of the adapter, a folder, or a hub id; default: the newest.")
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def compose(env: str | None, params: dict, adapter: str | None, port: int, host: str, no_browser: bool) -> None:
    """Open the page on which creatures are made from parts.

    It works on what the last run of --env found and trained, or on an adapter alone, and keeps what is made under
    data/07_model_output. Palettes are there from --pipelines=parts on. Nothing leaves this machine.
    """
    if not find_spec("gradio"):
        raise UserError("The page needs gradio: pip install --constraint constraints.txt --editable '.[app]'.")
    from partcraft_kedro.compose.server import serve
    from partcraft_kedro.opening import open_catalog, open_studio

    catalog = open_catalog(env, params)
    studio, stages = open_studio(catalog, adapter), catalog.load("params:stages")
    boards = stages.layer("07_model_output") / "boards" / studio.parts_fingerprint  # other parts, other boards
    of_run = {"title": stages.dataset, "env": env or os.environ.get("KEDRO_ENV")}
    address = serve(studio, boards, **of_run, host=host, port=port, open_browser=not no_browser)
    click.echo(f"Compose at {address} (Ctrl-C ends it).")
    end_at_ctrl_c()


@cli.command(params=[option for option in run.params if option.name == "env"])
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@stoppable()
def runs(env: str | None, port: int, host: str, no_browser: bool) -> None:
    """Open MLflow's page of the runs of an environment."""
    from partcraft_kedro.runs_page import serve_runs

    address, ended = serve_runs(env, host, port)
    click.echo(f"Runs at {address} (Ctrl-C ends it).")
    if not no_browser:
        webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        ended()


def _tell_names(context: click.Context, formatter: click.HelpFormatter) -> None:
    """At the end of `kedro run --help`: what may be given."""
    from kedro.framework.project import pipelines, settings

    conf = project_folder() / settings.CONF_SOURCE
    environments = sorted(path.name for path in conf.iterdir() if path.is_dir()) if conf.is_dir() else []
    with formatter.section("Names"):
        formatter.write_dl(
            [
                (
                    "--env",
                    f"{', '.join(name for name in environments if name not in ('base', 'local'))}; none: creatures",
                ),
                ("--pipelines", ", ".join(sorted(set(pipelines) - {"__default__"}))),
                (
                    "--params",
                    f"groups {', '.join(GROUPS)}; each option, with its default, is described in {options.__file__}",
                ),
            ]
        )


cli.add_command(export)
assert run.callback is not None  # what Kedro runs
run.callback = stoppable()(leading()(run.callback))
run.format_epilog = _tell_names  # type: ignore[method-assign, assignment]
for _option in run.params:
    if _option.name == "load_versions":
        _option.callback = arguments.load_versions
    if _option.name == "params":
        _option.callback = arguments.params
        _option.help = "Options: train.steps=200,images.folder=/my/pictures. In a file: --config."
for _group in load_entry_points("global"):  # Kedro looks for commands there first: `kedro viz`
    _group.commands = {name: plainly(command) for name, command in _group.commands.items()}
