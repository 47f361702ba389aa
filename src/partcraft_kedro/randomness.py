"""Random generators keyed by what they are for.

Nothing in the project draws from a global random state. Every draw comes from a generator keyed by
(seed, purpose, indices), so that step 700 of a training draws the same numbers whether or not the
training was interrupted at step 699, and no generator state ever needs saving.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *indices: int | str) -> int:
    """Hash (seed, purpose, indices) to 63 bits with SHA-256; equal keys give equal seeds, everywhere."""
    key = "/".join(str(part) for part in (seed, purpose, *indices))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, *indices: int | str) -> np.random.Generator:
    """A NumPy generator (PCG64) for one purpose."""
    return np.random.default_rng(derive_seed(seed, purpose, *indices))


def torch_generator(seed: int, purpose: str, *indices: int | str) -> "torch.Generator":
    """A torch generator for one purpose, on the CPU so that draws do not depend on the device."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose, *indices))
