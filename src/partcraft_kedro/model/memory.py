"""How much memory training, sampling and the VAE need, known from shapes before the first pass."""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import psutil
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from partcraft_kedro.allocator import give_back_freed_memory
from partcraft_kedro.errors import UserError
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import Base, picture_size
from partcraft_kedro.model.injection import Conditioning
from partcraft_kedro.model.partcraft import PartCraft

_GIB = 2**30
_USABLE = 0.9  # of what is free; the rest is for fragments, and for what other programs take meanwhile
# Of each model, by pictures asked for and whether they are guided.
_chosen: weakref.WeakKeyDictionary[PartCraft, dict[tuple[int, bool], int]] = weakref.WeakKeyDictionary()


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


class _Training(nn.Module):
    """The heavy part of a step, as one call, so that its weights can be swapped for both passes."""

    def __init__(self, model: PartCraft, capture: AttentionCapture):
        super().__init__()
        self.unet = model.pipeline.unet
        self._capture = capture

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, told: Conditioning) -> None:
        predicted = self.unet(latents, timesteps, **told.arguments(), return_dict=False)[0]
        (predicted.square().mean() + self._capture.maps().mean()).backward()


class _Denoising(nn.Module):
    """The heavy part of a step of sampling."""

    def __init__(self, model: PartCraft):
        super().__init__()
        self.unet = model.pipeline.unet

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, told: Conditioning) -> None:
        with torch.no_grad():
            self.unet(latents, timesteps, **told.arguments(), return_dict=False)


class _Vae(nn.Module):
    """One way through a VAE; `way` is the name of its method."""

    def __init__(self, vae: AutoencoderKL, way: str):
        super().__init__()
        self.vae, self._way = vae, way

    def forward(self, tensor: torch.Tensor) -> None:
        with torch.no_grad():
            getattr(self.vae, self._way)(tensor)


def step_memory(model: PartCraft, capture: AttentionCapture, pictures: int) -> int:
    """The peak bytes of one forward and backward pass of the U-Net over `pictures`, its weights not counted.

    As all that counts here, on fake tensors, which have shapes and no content: in seconds, on any device, whatever the
    model's size. They lie on the CPU, and have the types and layouts that the model's own device has.
    """
    parts = model.part_encoder.part_count + 1

    def inputs() -> tuple:
        capture.watch(torch.zeros(pictures, parts, dtype=torch.long))
        return _inputs(model, pictures, requires_grad=True)

    try:
        return _peak(_Training(model, capture), inputs)
    finally:
        capture.watch(None)


def sampling_memory(model: PartCraft, pictures: int, *, guided: bool) -> int:
    """The peak bytes of drawing `pictures` at once: of denoising, where guidance doubles them, or of decoding."""
    denoising = _peak(_Denoising(model), partial(_inputs, model, 2 * pictures if guided else pictures))
    return max(denoising, decoding_memory(model.pipeline, pictures))


def decoding_memory(pipeline: Base, pictures: int) -> int:
    """The peak bytes of the VAE's way from latents to `pictures`: of one, if it takes one by one."""
    config = pipeline.unet.config
    shape = (pictures, config.in_channels, config.sample_size, config.sample_size)
    return _peak(_Vae(pipeline.vae, "decode"), lambda: (torch.empty(shape),))


def encoding_memory(pipeline: Base, pictures: int) -> int:
    """The peak bytes of the VAE's way from `pictures` to latents: of one, if it takes one by one."""
    side = picture_size(pipeline)
    return _peak(_Vae(pipeline.vae, "encode"), lambda: (torch.empty(pictures, 3, side, side),))


def _inputs(model: PartCraft, rows: int, *, requires_grad: bool = False) -> tuple:
    """Of the U-Net."""
    config = model.pipeline.unet.config
    length = model.prompts.tokenizers[0].model_max_length
    dtype = model.pipeline.text_encoder.dtype
    told = Conditioning(torch.empty(rows, length, config.cross_attention_dim, dtype=dtype, requires_grad=requires_grad))
    if len(model.prompts.text_encoders) > 1:
        width = model.prompts.text_encoders[-1].config.projection_dim
        pooled = torch.empty(rows, width, dtype=dtype, requires_grad=requires_grad)
        told = Conditioning(told.words, pooled, torch.empty(rows, 6, dtype=torch.long))
    latents = torch.empty(rows, config.in_channels, config.sample_size, config.sample_size)
    return latents, torch.zeros(rows), told


def _peak(work: nn.Module, inputs: Callable[[], tuple]) -> int:
    """The most bytes that are alive at once in a call of `work`; its weights, and what `inputs` makes, not counted."""
    # What the compiler met on fake tensors it would leave uncompiled ever after.
    with FakeTensorMode() as mode, torch.compiler.set_stance("force_eager"):
        own = dict(work.named_parameters()) | dict(work.named_buffers())
        weights = {name: _like(weight, mode) for name, weight in own.items()}
        arguments = inputs()
        with LiveMemory(weights.values()) as live:
            torch.func.functional_call(work, weights, arguments)
    return live.peak


def _like(weight: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with mode:
        fake = torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype)
        return fake.requires_grad_(weight.requires_grad)


def choose_micro_batch(model: PartCraft, capture: AttentionCapture, batch_size: int) -> int:
    """The most pictures a forward pass, at most `batch_size`, that free memory holds.

    Raises UserError if it does not hold one.
    """
    learnt = sum(parameter.numel() for parameter in model.trainable().values())
    fixed = 12 * learnt  # a gradient and AdamW's two moments, in float32
    return _fitting(
        lambda pictures: fixed + step_memory(model, capture, pictures),
        batch_size,
        model.device,
        doing="Training",
        remedy="give --params train.gradient_checkpointing=true",
    )


def choose_batch(model: PartCraft, batch_size: int, *, guided: bool) -> int:
    """The most pictures drawn at once, at most `batch_size`, that free memory holds: asked once of a model.

    Raises UserError if it does not hold one.
    """
    chosen = _chosen.setdefault(model, {})
    if (batch_size, guided) not in chosen:
        chosen[batch_size, guided] = _fitting(
            lambda pictures: sampling_memory(model, pictures, guided=guided),
            batch_size,
            model.device,
            doing="Sampling",
            remedy="give base.device=cpu",
        )
    return chosen[batch_size, guided]


def _fitting(need: Callable[[int], int], most: int, device: torch.device, *, doing: str, remedy: str) -> int:
    """How many pictures, at most `most`, a device's free memory holds, of which `need` gives the bytes."""
    usable = _USABLE * free_memory(device)
    if (all_of_them := need(most)) <= usable:
        return most
    one = need(1)
    if one > usable:
        raise UserError(
            f"{doing} needs {one / _GIB:.2f} GiB for one picture, and {device.type} has {usable / _USABLE / _GIB:.2f} "
            f"GiB free: close other programs, or {remedy}."
        )
    return 1 + int((usable - one) * (most - 1) // (all_of_them - one))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes
        return torch.cuda.mem_get_info(device)[0] + kept
    give_back_freed_memory()
    return psutil.virtual_memory().available
