"""How much memory a training step needs, known from shapes before the first one."""

import weakref
from collections.abc import Iterable
from typing import Any

import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from partcraft_kedro.allocator import give_back_freed_memory
from partcraft_kedro.devices import uses_autocast
from partcraft_kedro.errors import UserError
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.injection import Conditioning
from partcraft_kedro.model.partcraft import PartCraft

_GIB = 2**30
_USABLE = 0.9  # of what is free; the rest is for fragments, and for what other programs take meanwhile


class LiveMemory(TorchDispatchMode):
    """Adds up the sizes of all tensors that are alive but `ignored`; `peak` is the most there was at once, in bytes."""

    def __init__(self, ignored: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in ignored}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: dict | None = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


class _ForwardBackward(nn.Module):
    """The heavy part of a step, as one call, so that its weights can be swapped for both passes."""

    def __init__(self, model: PartCraft, capture: AttentionCapture):
        super().__init__()
        self.unet = model.pipeline.unet
        self._autocast, self._capture = model.autocast, capture

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, told: Conditioning) -> None:
        with self._autocast("cpu"):  # where fake tensors are, whatever the model's device
            predicted = self.unet(latents, timesteps, **told.arguments(), return_dict=False)[0]
        (predicted.square().mean() + self._capture.maps().mean()).backward()


def step_memory(model: PartCraft, capture: AttentionCapture, pictures: int) -> int:
    """The peak bytes of one forward and backward pass of the U-Net over `pictures`, its weights not counted.

    Runs on fake tensors, which have shapes and no content: in seconds, on any device, whatever the model's size. They
    lie on the CPU, and have the types and layouts that the model's own device has.
    """
    config = model.pipeline.unet.config
    network = _ForwardBackward(model, capture)
    parts = model.part_encoder.part_count + 1
    with FakeTensorMode() as mode:
        weights = {name: _like(weight, mode) for name, weight in network.state_dict(keep_vars=True).items()}
        latents = torch.empty(pictures, config.in_channels, config.sample_size, config.sample_size)
        length = model.prompts.tokenizers[0].model_max_length
        dtype = torch.float32 if uses_autocast(model.device.type) else model.pipeline.text_encoder.dtype
        told = Conditioning(torch.empty(pictures, length, config.cross_attention_dim, dtype=dtype, requires_grad=True))
        if len(model.prompts.text_encoders) > 1:
            width = model.prompts.text_encoders[-1].config.projection_dim
            pooled = torch.empty(pictures, width, dtype=dtype, requires_grad=True)
            told = Conditioning(told.words, pooled, torch.empty(pictures, 6, dtype=torch.long))
        capture.watch(torch.zeros(pictures, parts, dtype=torch.long))
        with LiveMemory(weights.values()) as live:
            torch.func.functional_call(network, weights, (latents, torch.zeros(pictures), told))
    capture.watch(None)
    return live.peak


def _like(weight: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with mode:
        fake = torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype)
        return fake.requires_grad_(weight.requires_grad)


def choose_micro_batch(model: PartCraft, capture: AttentionCapture, batch_size: int) -> int:
    """The most pictures a forward pass, at most `batch_size`, that free memory holds.

    Raises UserError if it does not hold one.
    """
    free = free_memory(model.device)
    learnt = sum(parameter.numel() for parameter in model.trainable().values())
    fixed = 12 * learnt  # a gradient and AdamW's two moments, in float32
    one = step_memory(model, capture, 1)
    more = step_memory(model, capture, 2) - one
    fitting = 1 + int((_USABLE * free - fixed - one) // more)
    if fitting < 1:
        raise UserError(
            f"Training needs {(fixed + one) / _GIB:.2f} GiB for one picture, and {model.device.type} has "
            f"{free / _GIB:.2f} GiB free: close other programs, or give --params train.gradient_checkpointing=true."
        )
    return min(batch_size, fitting)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    give_back_freed_memory()
    return psutil.virtual_memory().available
