"""How a run ends before its end: by Ctrl-C, by SIGTERM, or with the process that started it."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import click

from partcraft_kedro.errors import in_one_line
from partcraft_kedro.tracking import active_mlflow

ENDS_WITH_PARENT = "PARTCRAFT_ENDS_WITH_PARENT"
"""The variable of the environment that is set for a process whose standard input is a pipe that its parent holds open
for as long as it lives: whatever ends the parent, on any system, closes it."""

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_GRACE = 10  # seconds for an orderly end, once the parent is gone
_LATER = 0.01  # seconds after which a signal that came at a bad moment comes again


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: what is half-written is removed, and MLflow's run is marked as killed."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is for what a script starts in the background
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _interrupt_again
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_leave_it_to_the_parent)
    if ENDS_WITH_PARENT in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt as stop:
        traceback.clear_frames(stop.__traceback__)  # MLflow's interrupted session ends, and with it the database's lock
        _mark_as_killed()
        click.echo("Stopped; the same command goes on.", err=True)
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT))


def end_at_ctrl_c() -> NoReturn:
    """Wait for Ctrl-C while other threads work, and end at once with 0.

    A thread that draws or loads weights cannot be stopped, and Python's own end would abort the process under it.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)  # a signal that another thread took is noticed no sooner than here
    os._exit(0)


def _mark_as_killed() -> None:
    """Tell MLflow, which may have been stopped in the middle of what it cannot go on from, or be out of reach."""
    try:
        if mlflow := active_mlflow():
            mlflow.end_run("KILLED")
    except Exception as error:  # of MLflow, its database or the network
        reason = in_one_line(error)[:200]
        click.echo(f"MLflow goes on showing this run as running ({reason}).", err=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _in_a_transaction(frame):
        _repeat(number)
    else:
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """A signal that came where Python drops exceptions, as in `__del__` or a weak reference's callback, is repeated."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _repeat(signal.SIGTERM if lost.exc_type is _Terminated else signal.SIGINT)
    else:
        sys.__unraisablehook__(lost)


def _repeat(number: int) -> None:
    """Send a signal that came at a bad moment again, a little later."""
    later = threading.Timer(_LATER, _send, (number,))
    later.daemon = True
    later.start()


def _send(number: int) -> None:
    """Send a signal to this process from a thread of its own."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main:
        signal.pthread_kill(main, number)  # also wakes it where it waits
    else:
        signal.raise_signal(number)


def _in_a_transaction(frame: FrameType | None) -> bool:
    """Whether MLflow is at its database: an exception anywhere inside SQLAlchemy may leave it locked, or be lost."""
    while frame and not frame.f_globals.get("__name__", "").startswith("sqlalchemy."):
        frame = frame.f_back
    return frame is not None


def _hold() -> None:
    """Let signals wait: one that comes to a child before it is told to ignore it would end in a traceback."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _leave_it_to_the_parent() -> None:
    """In a process that decodes pictures: it would answer Ctrl-C with a traceback of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release()


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the pipe is closed: nothing is ever written to it
    _send(signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(128 + signal.SIGTERM)  # whatever it still waits for: others wait for its locks
