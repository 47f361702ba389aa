"""Group normalisation and SiLU, both in one where Triton is there: torch's own copies channels-last tensors back and
forth."""

import logging
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor

_logger = logging.getLogger(__name__)


def group_norm(
    x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor, eps: float, *, silu: bool
) -> torch.Tensor:
    """By torch's own operations. x: (n, c, h, w); weight, bias: (c,), of any type."""
    if x.dtype != torch.float32:  # which on a CPU is channels last, and stays so
        x = x.contiguous()  # on a GPU torch would lay it out so itself: here, so that the memory is counted
    normal = F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
    return F.silu(normal) if silu else normal


def fused_group_norm(
    x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor, eps: float, *, silu: bool
) -> torch.Tensor:
    """The same in one kernel, whose sums are in float32; x and what comes out are channels last."""
    return _Fused.apply(x, groups, weight, bias, eps, silu)


def can_fuse(device: torch.device) -> bool:
    """Whether `fused_group_norm` runs on a device, and right: tried on a few numbers."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 9, 9, generator=generator).to(device, memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(64, generator=generator).to(device) for _ in range(2))
    try:
        [(found, of_found), (expected, of_expected)] = (
            (y := norm(x, 4, weight, bias, 1e-5, silu=True), torch.autograd.grad(y.square().sum(), x)[0])
            for norm in (fused_group_norm, group_norm)
        )
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(of_found, of_expected, rtol=1e-3, atol=1e-3)
    except Exception as error:  # what a compiler or driver that does not fit raises is of any kind
        _logger.warning("Group normalisation is torch's own and slower, as the fused one fails here: %s", error)
        return False
    return True


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor, eps: float, silu: bool
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x)
        mean, rstd = (x.new_empty(len(x), groups, dtype=torch.float32) for _ in range(2))
        if not isinstance(x, FakeTensor):  # these have no content
            from partcraft_kedro.model.group_norm_kernels import launch_forward

            launch_forward(x, weight, bias, y, mean, rstd, eps, silu)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.silu = silu
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        dweight, dbias = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
        if not isinstance(x, FakeTensor):
            from partcraft_kedro.model.group_norm_kernels import launch_backward

            launch_backward(dy, x, weight, bias, mean, rstd, dx, dweight, dbias, ctx.silu)
        of_weight, of_bias = (
            of_pictures.sum(0).to(learnt.dtype) if needed else None
            for of_pictures, learnt, needed in zip(
                (dweight, dbias), (weight, bias), (ctx.needs_input_grad[2], ctx.needs_input_grad[3]), strict=True
            )
        )
        return dx, None, of_weight, of_bias, None, None
