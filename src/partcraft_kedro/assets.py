"""Finding models: shipped with the package, in a local folder, or on a hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from partcraft_kedro.errors import UserError
from partcraft_kedro.stages import fingerprint_of

if TYPE_CHECKING:
    import torch

TINY = Path(__file__).parent / "tiny"


def resolve_model(name: str, component: str, option: str) -> str:
    """The folder or hub id that `from_pretrained` should load.

    name: `tiny` (the embedded model's `component`), a folder that exists, or a hub id `owner/model`.
    Raises UserError, naming the option, if it is none of these.
    """
    if name == "tiny":
        return str(TINY / component)
    if Path(name).is_dir():
        return name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise UserError(
        f"{option}={name!r} is neither 'tiny', nor a folder that exists, nor a hub id such as 'owner/model': "
        "download the model into a folder and give that folder's path."
    )


def explain_failure(name: str, option: str, kind: str, error: Exception) -> UserError:
    """One sentence on a model that `from_pretrained` could not load, and what to do about it.

    kind: what it should have been, such as `a DINOv2 model`.
    """
    reason = str(error).strip().splitlines()[0]
    if Path(name).is_dir() or name == "tiny":
        return UserError(f"{option}={name!r} cannot be loaded as {kind}: {reason}")
    return UserError(
        f"{option}={name!r} is not on this machine and cannot be fetched: download https://huggingface.co/{name} into "
        f"a folder and give that folder, --params {option}=<folder> ({reason.rstrip('.')})."
    )


def resolve_device(device: str) -> str:
    """A device that is there: `auto` is the first of cuda, mps and cpu. Raises UserError for one that is not."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in there.items() if available)
    if not there.get(device.partition(":")[0], False):
        usable = ", ".join(name for name, available in there.items() if available)
        raise UserError(f"base.device={device!r} is not available on this machine, which has: {usable}.")
    return device


def half_precision(device: str) -> "torch.dtype | None":
    """The 16-bit type that a device computes in faster than in float32: None where there is none."""
    import torch

    if not device.startswith("cpu"):
        return torch.float16
    # Elsewhere bfloat16 is emulated on a CPU, and slower than float32.
    cpu = Path("/proc/cpuinfo")
    fast = cpu.exists() and any(flag in cpu.read_text() for flag in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if fast else None


def compute_type(precision: str, device: str) -> "torch.dtype":
    """What a base model computes in on a device: `float32`, `bfloat16`, or `auto`, bfloat16 where it is fast.

    Not float16: LoRA would need its loss scaled.
    """
    import torch

    if precision == "auto":
        if device.startswith("cuda"):
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = device.startswith("cpu") and half_precision(device) is torch.bfloat16
        precision = "bfloat16" if fast else "float32"
    return getattr(torch, precision)


def model_fingerprint(name: str, component: str, option: str) -> str:
    """What a stage's key says of a model: the digest of its files where they are local, else its hub id."""
    resolved = resolve_model(name, component, option)
    return fingerprint_of(Path(resolved)) if Path(resolved).is_dir() else resolved
