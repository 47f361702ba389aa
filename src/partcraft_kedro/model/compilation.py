"""Networks compiled to one graph, or not at all."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from partcraft_kedro.errors import UserError, first_line
from partcraft_kedro.model.streamlined import LeanGroupNorm

# What U-Nets and text encoders repeat, by the names of diffusers and transformers.
_BLOCKS = ("BasicTransformerBlock", "CLIPEncoderLayer")
_SHAPES = 64  # for which a block may be compiled: of each resolution, and of a batch's last, smaller piece
_SMALL = 50_000_000  # weights up to which a GPU waits for the kernels of a network to be launched, not for their work


def compile_networks(networks: Iterable[nn.Module], device: torch.device, *, graphs: bool) -> None:
    """Let networks be compiled where they are first called, to one graph: what would break it raises.

    On a GPU of large networks each kind of repeated block, once for each shape of its inputs, which takes seconds; the
    rest stays as it is. Else each network as a whole, which takes minutes.
    graphs: whether a small network becomes CUDA graphs, which one call launches: where nothing that it returns, nor a
    gradient that it makes, is looked at after its next call.
    """
    torch._dynamo.config.recompile_limit = _SHAPES
    for network in networks:
        if device.type != "cuda":
            # On a CPU the compiler would take channels last, in which what it writes for group normalisation loses more
            # than convolutions gain in bfloat16, and as much in float32.
            network.compile(fullgraph=True, options={"layout_optimization": False})
        elif sum(weight.numel() for weight in network.parameters()) <= _SMALL:
            for module in network.modules():
                if isinstance(module, LeanGroupNorm):  # the compiler fuses it, and cannot read what is fused already
                    module.fused = False
            network.compile(fullgraph=True, mode="reduce-overhead" if graphs else None)
        else:
            for block in network.modules():
                if type(block).__name__ in _BLOCKS:
                    block.compile(fullgraph=True, dynamic=False)
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")  # in diffusers


@contextmanager
def one_sentence_if_not_compiled(option: str) -> Iterator[None]:
    """Raises UserError, which names the option that asked for it, in the place of what the compiler raises."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        raise UserError(
            f"torch {torch.__version__} cannot compile base.model ({first_line(error)}): give {option}=false."
        ) from error
