"""Group normalisation in Triton, by its interpreter: where torch is a GPU's, it brings Triton."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

from partcraft_kedro.model.group_norm import can_fuse, fused_group_norm, group_norm


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
def test_the_kernels_against_torch_in_float64() -> None:
    """In a process of its own: Triton reads whether to interpret when it is imported, which torch may have done."""
    subprocess.run([sys.executable, __file__], env=os.environ | {"TRITON_INTERPRET": "1"}, check=True)


def test_torch_s_own_where_there_is_no_gpu() -> None:
    assert not can_fuse(torch.device("cpu"))
    x, weight, bias = torch.randn(2, 8, 3, 3), torch.randn(8), torch.randn(8)
    torch.testing.assert_close(
        group_norm(x, 2, weight, bias, 1e-5, silu=True), F.silu(F.group_norm(x, 2, weight, bias, 1e-5))
    )


def check(shape: tuple[int, ...], groups: int, silu: bool, dtype: torch.dtype = torch.float32) -> None:
    """Values, and all gradients; far from 0, where a sum of squares would cancel."""
    generator = torch.Generator().manual_seed(0)
    x = (30 + 2 * torch.randn(shape, generator=generator)).to(dtype, memory_format=torch.channels_last)
    weight, bias = (torch.randn(shape[1], generator=generator) for _ in range(2))
    slope = torch.randn(shape, generator=generator).to(dtype)
    learns = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    found = fused_group_norm(x, groups, weight, bias, 1e-5, silu=silu)
    exact = [tensor.detach().double().requires_grad_() for tensor in learns]
    expected = F.group_norm(exact[0], groups, *exact[1:], 1e-5)
    expected = F.silu(expected) if silu else expected
    assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == dtype
    rounding = 1e-5 if dtype == torch.float32 else 2**-7  # which the interpreter cuts off
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=1e-5)
    of_found = torch.autograd.grad(found, learns, slope)
    for of_one, of_exact in zip(of_found, torch.autograd.grad(expected, exact, slope.double()), strict=True):
        torch.testing.assert_close(of_one.double(), of_exact, rtol=rounding, atol=1e-6 * of_exact.abs().max().item())


if __name__ == "__main__":
    check((2, 40, 9, 9), 4, silu=True)
    check((1, 320, 20, 20), 32, silu=False)  # groups of ten channels, in more than one block of locations
    check((2, 6, 5, 7), 1, silu=True)
    check((2, 64, 8, 8), 32, silu=True, dtype=torch.bfloat16)
