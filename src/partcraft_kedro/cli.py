"""The project's commands, with a user's mistakes told in one sentence: Kedro's own `run`, and `sweep`."""

import errno
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import yaml
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import CONTEXT_SETTINGS

from partcraft_kedro.errors import UserError


@click.group(context_settings=CONTEXT_SETTINGS, name="partcraft-kedro")
def cli() -> None:
    """PartCraft: discover parts, learn them, recompose them, measure the result."""


def _plainly(command: Callable) -> Callable:
    """Turn the errors that a user can mend into one line and exit code 1."""

    @functools.wraps(command)
    def wrapped(*arguments: object, **options: object) -> object:
        try:
            return command(*arguments, **options)
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error

    return wrapped


def _sentence(error: BaseException) -> str | None:
    """What to tell the user, if anything in the error's chain is the user's to mend."""
    from kedro.io import DatasetError
    from kedro.validation.exceptions import ParameterValidationError

    for cause in _chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        # safetensors wraps the system's error in one of its own that keeps nothing but the text.
        if os.strerror(errno.ENOSPC) in str(cause) or "disk is full" in str(cause):  # SQLite has words of its own
            return "The disk is full: free some space and run the same command again; finished work is kept."
        if "database is locked" in str(cause):
            return "MLflow's database is in use by other runs: run the same command again; finished work is kept."
        if type(cause).__module__.partition(".")[0] in ("sqlalchemy", "alembic"):
            import mlflow

            return (
                f"MLflow's database {mlflow.get_tracking_uri()} cannot be used ({str(cause).splitlines()[0]}): "
                "a run that was killed may have left it half-written. Remove it, or name another one with "
                "MLFLOW_TRACKING_URI."
            )
    # A wrong option, a missing version, or a pipeline, tag or node that does not exist.
    if isinstance(error, ParameterValidationError | DatasetError) or (
        isinstance(error, ValueError) and _raised_in(error).startswith("kedro.")
    ):
        return " ".join(str(error).split())
    return None


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


def _grid(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, list]:
    """`train.rank=2,4` as {"train.rank": [2, 4]}."""
    grid = {}
    for item in given:
        option, _, values = item.replace(" ", "").partition("=")
        if not option or not all(values.split(",")):
            raise click.BadParameter(f"{item!r} is not of the form train.rank=2,4,8", context, parameter)
        if option in grid:
            raise click.BadParameter(f"{option} is given twice", context, parameter)
        try:
            grid[option] = [yaml.safe_load(value) for value in values.split(",")]
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{item!r} has a value that cannot be read", context, parameter) from error
    return grid


def _seeds(context: click.Context, parameter: click.Parameter, given: str | None) -> list[int]:
    seeds = given.split(",") if given else []
    if not all(seed.strip().isdecimal() for seed in seeds):
        raise click.BadParameter(f"{given!r} is not of the form 0,1,2", context, parameter)
    return [int(seed) for seed in seeds]


def _print_sweep(folder: Path) -> None:
    import pandas as pd
    from rich.console import Console
    from rich.table import Column, Table

    from partcraft_kedro.experiments.summary import HEADLINES, table_of_sweep

    found = table_of_sweep(pd.read_parquet(folder / "sweep_summary.parquet"))
    found = found.loc[:, found.columns.isin(HEADLINES)].reset_index()
    headings = (Column(name, no_wrap=name == "setting") for name in found.columns)
    table = Table(*headings, title=f"{folder.name}: mean over seeds ± half the 95% interval")
    for row in found.itertuples(index=False):
        table.add_row(*map(str, row))
    Console().print(table)


@click.command(params=[option for option in run.params if option.name in ("env", "params")])
@click.argument("names", nargs=-1)
@click.option("--grid", "-g", multiple=True, callback=_grid, help="An option's values: train.rank=2,4,8. Repeatable.")
@click.option("--seeds", callback=_seeds, help="Values of train.seed, 0,1,2 unless conf/ says otherwise.")
@click.option("--parallel", type=click.IntRange(min=1), help="Points at once; default: one on each GPU, else one.")
@_plainly
def sweep(
    names: tuple[str, ...], env: str | None, params: dict, grid: dict, seeds: list[int], parallel: int | None
) -> None:
    """Run a grid of options and seeds, and report on it.

    NAMES are sweeps that conf/<env>/sweeps.yml describes: attention_weight (the default; the paper's Tab. 1 and
    Fig. 5), methods, break_a_scene. With --grid, the name of a sweep of your own.

    Points that are done are not run again: a sweep that was killed, or had points that failed, goes on by the same
    command. Every point is a child of one MLflow run.
    """
    from partcraft_kedro.sweeps import plan_sweep, run_sweep

    if grid and len(names) > 1:
        raise click.UsageError("--grid is one sweep: give it one name, or none.")
    if wrong := [name for name in names if not re.fullmatch(r"[\w-]+", name)]:
        raise click.UsageError(f"{wrong[0]!r} is no name for a sweep: take letters, digits, - and _.")
    default = "-".join(["grid", *(option.rpartition(".")[2] for option in grid)]) if grid else "attention_weight"
    plans = [plan_sweep(name, grid, seeds, env, params) for name in names or [default]]
    failures = []
    for plan in plans:
        try:
            folder = run_sweep(plan, parallel)
        except UserError as error:  # the next sweep does not depend on this one
            failures.append(str(error))
            continue
        _print_sweep(folder)
        click.echo(f"Tables, figures, and the run behind each number: {folder / 'experiments.html'}")
    if failures:
        raise UserError(" ".join(failures))


run.callback = _plainly(run.callback)
cli.add_command(run)
cli.add_command(sweep)
