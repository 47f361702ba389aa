"""What the processes do that torchrun starts with the same command: the first runs it, the others train with it.

    torchrun --nproc-per-node=8 -m partcraft_kedro run

All but rank 0 open no catalog, take no lock, and know neither options nor MLflow: they wait to be sent what to call.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from partcraft_kedro.errors import UserError, first_line
from partcraft_kedro.machines import installed, other_version, shared_variables

_Result = TypeVar("_Result")
_PATIENCE = timedelta(days=14)  # for what rank 0 does alone
_GRACE = 5  # seconds that one rank's end goes before that of the others, so that torchrun names the right one


def is_launched() -> bool:
    """Whether torchrun started this process, and others beside it."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def is_follower() -> bool:
    """Whether it is not the first of them."""
    return is_launched() and int(os.environ["RANK"]) > 0


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """Around the run of the first process: the others wait meanwhile, and do what `together` is given."""
    if not is_launched():
        yield
        return
    with _joined():
        try:
            yield
        except BaseException:
            gc.freeze()  # else Python looks through millions of objects before it ends, and the others wait
            raise
        _send(None)


def together(work: Callable[..., _Result], **told: Any) -> _Result:
    """`work(**told)` here, and `work()` in all other processes at once; returns what it returns here.

    work: pickled for them, with its arguments; told: whom to tell, which others have not.
    """
    if is_launched():
        _send(partial(_be_as_the_first, shared_variables(), installed()))
        _send(work)
    return work(**told)


def _be_as_the_first(variables: dict[str, str], expected: dict[str, str]) -> None:
    """Take over what the environment of rank 0 says, before anything is imported that reads it.

    expected: what is installed there. Raises UserError if this machine has something in another version.
    """
    os.environ.update(variables)
    if different := other_version(expected):
        raise UserError(f"This machine {different}: all hosts need the code and the packages of rank 0.")


def _send(work: Callable[..., object] | None) -> None:
    """Let all others call something, or end."""
    import torch.distributed as dist

    from partcraft_kedro.training.ranks import connected

    with connected():
        dist.broadcast_object_list([work])


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def follow() -> None:
    """Instead of any command, in all processes but the first: do what that one sends, in silence."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from partcraft_kedro.training.ranks import LostRank

    try:
        with (
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing),
            contextlib.redirect_stderr(nothing),
        ):
            _do_what_is_sent()
    except LostRank:  # the one that ended has told why
        time.sleep(_GRACE)
        sys.exit(1)
    except UserError as error:
        raise click.ClickException(f"Rank {os.environ['RANK']} on {socket.gethostname()}: {error}") from error


def _do_what_is_sent() -> None:
    import torch.distributed as dist

    from partcraft_kedro.training.ranks import connected

    with _joined():
        while True:
            sent: list[Callable[[], object] | None] = [None]
            with connected():
                dist.broadcast_object_list(sent)
            if sent[0] is None:
                break
            sent[0]()


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    """With a GPU of one's own, where there are any, and connected to the others.

    After an error nobody is told: they may be in the middle of something, and end as the connection does.
    """
    import torch.distributed as dist

    from partcraft_kedro.devices import visible_gpus

    gpus = visible_gpus()
    here, mine = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    if gpus and mine == 0 and here > len(gpus):
        raise UserError(
            f"torchrun has started {here} processes on {socket.gethostname()}, which has {len(gpus)} GPUs: give "
            f"--nproc-per-node={len(gpus)}, or CUDA_VISIBLE_DEVICES=-1 to train on its processor."
        )
    if gpus:  # the others' are out of sight: `cuda` means this one, in every thread and library
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[mine % len(gpus)]
    # Objects and numbers go by gloo, gradients on a GPU by NCCL.
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except RuntimeError as error:
        raise UserError(
            f"The processes do not find each other ({first_line(error)}): let every host reach the others over the "
            "network that GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name."
        ) from error
    yield
    dist.destroy_process_group()
