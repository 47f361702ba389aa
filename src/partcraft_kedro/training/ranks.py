"""Ranks: the processes that train together, each on a slice of every batch."""

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from partcraft_kedro.errors import UserError

if TYPE_CHECKING:
    from partcraft_kedro.training.step import Batch


class LostRank(UserError):
    """Another rank has ended in the middle of the work."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Raises LostRank where another rank has ended: its connection is then closed, at once."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's, in words that change with their versions
        raise LostRank(
            "Another process of this training has ended: what it told, or torchrun's own report, says why; the same "
            "command goes on, with as many processes or with others."
        ) from error


class Ranks:
    """All of torch.distributed's process group; this process alone where there is none.

    first: whether this is rank 0, which alone writes and tells.
    """

    def __init__(self) -> None:
        together = dist.is_initialized()
        self._rank, self._count = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        self.first = self._rank == 0

    def refuse_unequal(self, batch_size: int) -> None:
        """Raise UserError unless every rank gets as many pictures of a batch: else their mean is not the batch's."""
        if batch_size % self._count:
            next_size = batch_size + self._count - batch_size % self._count
            raise UserError(
                f"train.batch_size={batch_size} cannot be cut into equal slices for {self._count} processes: start as "
                f"many as divide it, or give --params train.batch_size={next_size}, which is another training."
            )

    def refuse_unlike(self, networks: Iterable[nn.Module], step: int) -> None:
        """Raise UserError on rank 0 unless all ranks begin with the same weights, frozen ones too, at the same step."""
        if self._count == 1:
            return
        facts = [step, *(_sums_of_bits(network) for network in networks)]
        digests = [""] * self._count
        with connected():
            dist.all_gather_object(digests, hashlib.sha256(repr(facts).encode()).hexdigest())
        unlike = [rank for rank, other in enumerate(digests) if other != digests[0]]
        if unlike and self.first:  # the others end with it
            raise UserError(
                f"Rank {unlike[0]} begins with other weights than rank 0, in another precision or at another step: let "
                "all hosts see the same data folder and the same base.model, and have GPUs of one kind."
            )

    def slice_of(self, batch: "Batch") -> "Batch":
        """This rank's pictures of a batch."""
        return list(batch.split(len(batch) // self._count))[self._rank]

    def mean(self, parameters: Collection[nn.Parameter], losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Give each parameter the mean of all ranks' gradients, in one exchange; returns the mean losses.

        Slices are equal, and a batch's loss is the mean of its pictures' losses: so is its gradient.
        """
        if self._count == 1:
            return losses
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        own = [*gradients, torch.stack(list(losses.values()))]
        flat = torch.cat([tensor.flatten() for tensor in own])
        with connected():
            dist.all_reduce(flat)
        flat /= self._count
        *means, of_losses = flat.split([tensor.numel() for tensor in own])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return dict(zip(losses, of_losses.unbind(), strict=True))

    def smallest(self, number: int) -> int:
        """The least of the ranks' numbers."""
        if self._count == 1:
            return number
        least = torch.tensor(number)
        with connected():
            dist.all_reduce(least, dist.ReduceOp.MIN)
        return int(least)


def _sums_of_bits(network: nn.Module) -> dict[str, tuple[str, int]]:
    """Of each weight and buffer its type and the sum of its bits, as whole numbers: these add up to the same on every
    device in any order, and weights of gigabytes are read once, where they are."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    state = network.state_dict()
    sums = [tensor.view(whole[tensor.element_size()]).sum(dtype=torch.int64).cpu() for tensor in state.values()]
    return {name: (str(tensor.dtype), int(of)) for (name, tensor), of in zip(state.items(), sums, strict=True)}
