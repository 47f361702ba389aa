"""Work in passes of as many pictures as memory holds."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from partcraft_kedro.errors import UserError

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

# Of a CPU on Unix and on Windows, of CUDA and MPS, of cuDNN and cuBLAS; and of cuDNN where none of its ways to compute
# a convolution finds the room that it needs.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "unable to find an engine",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is torch's word that memory ran out; beyond a GPU's own allocator it has no type for it."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def as_many_as_fit(work: Callable[[int], _Result], size: int, doing: str, remedy: str) -> tuple[_Result, int]:
    """`work(size)`, from the start with half the size where memory runs out; returns its result, and the size that fit.

    doing, remedy: `Memory ran out in <doing>`, and what the user may do about it.
    Raises UserError if memory does not hold one picture a pass.
    """
    first = size
    while True:
        try:
            result = work(size)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise UserError(
                    f"Memory ran out in {doing} with one picture a pass: close other programs, or {remedy}; finished "
                    "work is kept."
                ) from error
        # Not in the handler: the error holds on to what the pass had in memory.
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if size < first:
        _logger.warning("Memory ran out in %s: going on with passes of %d instead of %d pictures.", doing, size, first)
    return result, size
