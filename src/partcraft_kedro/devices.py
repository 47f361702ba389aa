"""Where models compute, and in what."""

import os
from pathlib import Path

import torch

from partcraft_kedro.errors import UserError


def resolve_device(device: str) -> str:
    """A device that is there: `auto` is the first of cuda, mps and cpu. Raises UserError for one that is not."""
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if device == "auto":
        return next(name for name, count in there.items() if count)
    name, numbered, number = device.partition(":")
    if (numbered and not number.isdecimal()) or int(number or 0) >= there.get(name, 0):
        usable = ", ".join(f"{name}:{i}" if count > 1 else name for name, count in there.items() for i in range(count))
        raise UserError(f"base.device={device!r} is not available on this machine, which has: {usable}.")
    return device


def refuse_one_of_several(device: str, others: str) -> None:
    """Raise UserError if a device is one GPU of several, `cuda:1`, where processes have one each.

    device: `base.device`; others: those processes, for the sentence.
    """
    if ":" in device:
        raise UserError(
            f"base.device={device!r} is one GPU of several, and {others} have one each: give base.device=cuda."
        )


def visible_gpus() -> list[str]:
    """This machine's GPUs that may be used, each as CUDA_VISIBLE_DEVICES names it."""
    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(count)])[:count]


def half_precision(device: str) -> torch.dtype | None:
    """The 16-bit type that a device computes in faster than in float32: None where there is none."""
    if not device.startswith("cpu"):
        return torch.float16
    # Elsewhere bfloat16 is emulated on a CPU, and slower than float32.
    cpu = Path("/proc/cpuinfo")
    fast = cpu.exists() and any(flag in cpu.read_text() for flag in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if fast else None


def compute_type(precision: str, device: str) -> torch.dtype:
    """What a base model computes in on a device: `float32`, `bfloat16`, or `auto`, bfloat16 where it is fast.

    Not float16: LoRA would need its loss scaled.
    """
    if precision == "auto":
        if device.startswith("cuda"):
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = device.startswith("cpu") and half_precision(device) is torch.bfloat16
        precision = "bfloat16" if fast else "float32"
    return getattr(torch, precision)
