"""The project's commands: Kedro's own and its plugins', `new`, `sweep`, `export`; a user's mistake is one sentence."""

import copy
import os
import re
import sys
import threading
import warnings
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import click
import yaml
from kedro import KedroDeprecationWarning
from kedro.framework.cli.cli import project_commands
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import CONTEXT_SETTINGS, load_entry_points

from partcraft_kedro import options
from partcraft_kedro.errors import FullDisk, UserError, is_full_disk, unknown
from partcraft_kedro.exporting import export
from partcraft_kedro.options import GROUPS
from partcraft_kedro.project import lay_out, project_folder
from partcraft_kedro.stopping import stoppable
from partcraft_kedro.torchrun import follow, is_follower, is_launched, leading


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


def plainly(command: click.Command) -> click.Command:
    """A command, or each of a group's, that looks at the names it is given before it does anything, and turns the
    errors that a user can mend into one line and exit code 1."""
    command = copy.copy(command)
    make_context = partial(_make_context_plainly, command.make_context)
    command.make_context = make_context  # type: ignore[method-assign]  # of this copy alone
    if isinstance(command, click.Group):
        get = partial(_get_plainly, command.get_command)
        command.get_command = get  # type: ignore[method-assign]  # of this copy alone
    else:
        invoke = partial(_invoke_plainly, command.invoke)
        command.invoke = invoke  # type: ignore[method-assign]  # of this copy alone
    return command


def _get_plainly(
    get: Callable[[click.Context, str], click.Command | None], context: click.Context, name: str
) -> click.Command | None:
    return (found := get(context, name)) and plainly(found)


def _make_context_plainly(make_context: Callable[..., click.Context], *given: Any, **settings: Any) -> click.Context:
    """What is wrong with the options as one sentence, without the usage above it."""
    try:
        return make_context(*given, **settings)
    except click.UsageError as error:
        error.ctx = None
        raise


def _invoke_plainly(invoke: Callable[[click.Context], Any], context: click.Context) -> Any:
    # As an activated environment has it: `kedro mlflow ui` starts `mlflow`.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # `--pipelines=train` is what people type, and Kedro knows what it means.
    warnings.filterwarnings("ignore", "Option '--pipeline' is deprecated", KedroDeprecationWarning)
    # What equals the newest version of a folder is no further one.
    warnings.filterwarnings("ignore", "Save version .* did not match load version")
    try:
        if is_launched() and context.command.callback is not run.callback:
            raise UserError(f"torchrun is for `kedro run` alone: start `{context.info_name}` without it.")
        _refuse_unknown_names(context.params)
        _name_stages_of_nodes(context.params)
        return invoke(context)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise click.ClickException(sentence) from error


def _refuse_unknown_names(given_options: dict[str, Any]) -> None:
    """Raise UserError for an environment, a pipeline, a tag or a node that there is not.

    `kedro viz run` would wait ten minutes for a server that has died of it.
    """
    from kedro.framework.project import pipelines, settings

    def given(*parameters: str) -> list[str]:
        values = [given_options.get(parameter) or () for parameter in parameters]
        return [name for value in values for name in ([value] if isinstance(value, str) else value)]

    environment = given_options.get("env") or os.environ.get("KEDRO_ENV")
    conf = Path(given_options.get("conf_source") or project_folder() / settings.CONF_SOURCE)
    if "[" in str(conf):
        raise UserError(f"Kedro cannot read settings in {conf}, for the [ in its name: rename the folder.")
    if environment and conf.is_dir() and not (conf / environment).is_dir():
        raise unknown("environment", environment, (path.name for path in conf.iterdir() if path.is_dir()))
    chosen = given("pipeline", "pipelines")
    for name in chosen:
        if name not in pipelines:
            raise unknown("pipeline", name, set(pipelines) - {"__default__"})
    tags, nodes = given("tags"), given("node_names", "from_nodes", "to_nodes")
    datasets = given("from_inputs", "to_outputs", "load_versions")
    if tags or nodes or datasets:
        there = [node for name in chosen or ["__default__"] for node in pipelines[name].nodes]
        for kind, names, known in (
            ("tag", tags, {tag for node in there for tag in node.tags}),
            ("node", nodes, {name for node in there for name in (node.name, _without_stage(node.name))}),
            ("dataset", datasets, {name for node in there for name in (*node.inputs, *node.outputs)}),
        ):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)


def _without_stage(node: str) -> str:
    return node.rpartition(".")[2]


def _name_stages_of_nodes(options: dict[str, Any]) -> None:
    """Kedro calls a node of a stage `train.train_adapter`; people may leave the stage away."""
    from kedro.framework.project import pipelines

    full = {_without_stage(node.name): node.name for pipeline in pipelines.values() for node in pipeline.nodes}
    for parameter in ("node_names", "from_nodes", "to_nodes"):
        if given := options.get(parameter):
            options[parameter] = [full.get(name, name) for name in given]


def _sentence(error: BaseException) -> str | None:
    """What to tell the user, if anything in the error's chain is the user's to mend."""
    from kedro.io import DatasetError
    from kedro.validation.exceptions import ParameterValidationError

    chain = list(_chain(error))
    for cause in chain:  # before all else: what MLflow says of a run that failed hides why it did
        if isinstance(cause, UserError):
            return str(cause)
    for cause in chain:
        if is_full_disk(cause) or "No usable temporary directory" in str(cause):
            return str(FullDisk(_not_written(cause)))
        if _is_out_of_memory(cause):
            return (
                f"Memory ran out ({' '.join(str(cause).split())[:120]}): close other programs, or give a smaller "
                "features.batch_size or generate.sampling.batch_size; finished work is kept."
            )
        if "database is locked" in str(cause):
            return "MLflow's database is in use by other runs: run the same command again; finished work is kept."
        if type(cause).__module__.startswith("requests."):  # MLflow's server, in the middle of a run
            return f"The network failed ({cause}): run the same command again; finished work is kept."
        if type(cause).__module__.partition(".")[0] in ("sqlalchemy", "alembic"):
            import mlflow

            return (
                f"MLflow's database {mlflow.get_tracking_uri()} cannot be used ({str(cause).splitlines()[0]}): "
                "a run that was killed may have left it half-written. Remove it, or name another one with "
                "MLFLOW_TRACKING_URI."
            )
    if isinstance(error, ParameterValidationError):
        return _wrong_options(str(error))
    # A missing version, or a pipeline, tag or node that does not exist.
    if isinstance(error, DatasetError) or (isinstance(error, ValueError) and _raised_in(error).startswith("kedro.")):
        return " ".join(str(error).split())
    return None


def _wrong_options(told: str) -> str:
    """What is wrong with each option, out of what pydantic tells Kedro and Kedro tells in one text."""
    sentences, group, option = [], "", ""
    for line in told.splitlines():
        if begins := re.match(r"- Parameter '(\w+)'", line):
            group = option = begins[1]
        elif re.fullmatch(r"[\w.]+", line):
            option = f"{group}.{line}"
        elif found := re.match(r"  (Value error, )?(.+) \[type=\w+, input_value=(.*), input_type=\w+\]$", line):
            wrong = found[2][0].lower() + found[2][1:]
            sentences.append(f"{option}: {wrong}" if found[1] else f"{option}={found[3]}: {wrong}")
    if not sentences:
        return " ".join(told.split())
    return "; ".join(sentences).removesuffix("?") + ("?" if sentences[-1].endswith("?") else ".")


def _not_written(error: BaseException) -> str:
    """What an error of a full disk is about: stages name their own files."""
    import mlflow

    if type(error).__module__.partition(".")[0] in ("mlflow", "sqlalchemy", "sqlite3"):
        return f"MLflow's database {mlflow.get_tracking_uri()}"
    # Of a copy the second name is that of the file that it was to be.
    names = (getattr(error, name, None) for name in ("filename2", "filename"))
    return next(filter(None, names), "a file for MLflow or a temporary one")


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in Python or in torch, which is asked if it is there: to import it takes seconds."""
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from partcraft_kedro.passes import is_out_of_memory

    return is_out_of_memory(error)


def _raised_in(error: BaseException) -> str:
    """The name of the module that raised an error."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else frame.tb_frame.f_globals["__name__"]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _params(context: click.Context, parameter: click.Parameter, given: str | dict) -> dict[str, Any]:
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


def _load_versions(context: click.Context, parameter: click.Parameter, given: str | None) -> dict[str, str]:
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


def _grid(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, list]:
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


def _seeds(context: click.Context, parameter: click.Parameter, given: str | None) -> list[int]:
    seeds = given.split(",") if given else []
    if not all(seed.strip().isdecimal() for seed in seeds):
        raise click.BadParameter(f"{given!r} is not of the form 0,1,2", context, parameter)
    return [int(seed) for seed in seeds]


def _share(context: click.Context, parameter: click.Parameter, given: str | None) -> tuple[int, int] | None:
    """`3/8` as (3, 8)."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    share, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= share <= of:
        raise click.BadParameter(f"{given!r} is not of the form 3/8", context, parameter)
    return share, of


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
@click.option("--grid", "-g", multiple=True, callback=_grid, help="An option's values: train.rank=2,4,8. Repeatable.")
@click.option("--seeds", callback=_seeds, help="Values of train.seed, 0,1,2 unless conf/ says otherwise.")
@click.option("--parallel", type=click.IntRange(min=1), help="Points at once; default: one on each GPU, else one.")
@click.option("--only", callback=_share, help="A share of the points: 3/8 is the third of eight, for job arrays.")
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

    It works on what the last run of --env found and trained, and keeps what is made under data/07_model_output.
    Palettes are there from --pipelines=parts on. Nothing leaves this machine.
    """
    if not find_spec("gradio"):
        raise UserError("The page needs gradio: pip install --constraint constraints.txt --editable '.[app]'.")
    from partcraft_kedro.compose.server import serve
    from partcraft_kedro.files import fingerprint_of
    from partcraft_kedro.opening import open_catalog, open_studio

    catalog = open_catalog(env, params)
    studio, stages = open_studio(catalog, adapter), catalog.load("params:stages")
    # Other parts, other boards: their tokens would mean something else.
    boards = stages.layer("07_model_output") / "boards" / fingerprint_of(catalog.load("part_predictor"))
    of_run = {"title": stages.dataset, "env": env or os.environ.get("KEDRO_ENV")}
    address = serve(studio, boards, **of_run, host=host, port=port, open_browser=not no_browser)
    click.echo(f"Compose at {address} (Ctrl-C ends it).")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


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
        _option.callback = _load_versions
    if _option.name == "params":
        _option.callback = _params
        _option.help = "Options: train.steps=200,images.folder=/my/pictures. In a file: --config."
for _group in load_entry_points("global"):  # Kedro looks for commands there first: `kedro viz`
    _group.commands = {name: plainly(command) for name, command in _group.commands.items()}
