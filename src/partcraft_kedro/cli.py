"""The project's commands: Kedro's own `run`, with a user's mistakes told in one sentence."""

import errno
import functools
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
    from kedro.framework.cli.utils import KedroCliError
    from kedro.io import DatasetError
    from kedro.validation.exceptions import ParameterValidationError

    for cause in _chain(error):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return "The disk is full: free some space and run the same command again; finished work is kept."
    if isinstance(error, ParameterValidationError):
        return " ".join(str(error).split())
    if isinstance(error, DatasetError | ValueError) and not isinstance(error, KedroCliError):
        return " ".join(str(error).split()) if isinstance(error, DatasetError) else None
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


run.callback = _plainly(run.callback)
cli.add_command(run)
