"""Networks compiled whole, or not at all."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from partcraft_kedro.errors import UserError

# What U-Nets and text encoders repeat, by the names of diffusers and transformers.
_BLOCKS = ("BasicTransformerBlock", "CLIPEncoderLayer")
_SHAPES = 64  # for which a block may be compiled: of each resolution, and of a batch's last, smaller piece


def compile_networks(networks: Iterable[nn.Module], *, by_block: bool) -> None:
    """Let networks be compiled where they are first called, to one graph: what would break it raises.

    by_block: each kind of repeated block once for each shape of its inputs, which takes seconds; the rest stays as it
    is. Else each network as a whole, which takes minutes.
    """
    networks = list(networks)
    if by_block:
        torch._dynamo.config.recompile_limit = _SHAPES
        networks = [block for network in networks for block in network.modules() if type(block).__name__ in _BLOCKS]
        for block in networks:
            block.compile(fullgraph=True, dynamic=False)
    else:
        for network in networks:
            # On a CPU the compiler would take channels last, in which what it writes for group normalisation loses more
            # than convolutions gain in bfloat16, and as much in float32.
            network.compile(fullgraph=True, options={"layout_optimization": False})
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")  # in diffusers


@contextmanager
def one_sentence_if_not_compiled() -> Iterator[None]:
    """Raises UserError in the place of what the compiler raises."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"torch {torch.__version__} cannot compile base.model ({reason}): give train.compile=false."
        ) from error
