"""The project's commands: Kedro's own `run`, with a user's mistakes told in one sentence."""

import errno
import functools
import os
from collections.abc import Callable, Iterator

import click
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
        if os.strerror(errno.ENOSPC) in str(cause):
            return "The disk is full: free some space and run the same command again; finished work is kept."
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


run.callback = _plainly(run.callback)
cli.add_command(run)
