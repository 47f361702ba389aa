"""A U-Net that computes in one type without autocast, in one memory layout and with few kernels.

What is frozen and what flows is in that type; what learns stays in float32, and is cast where it enters.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from partcraft_kedro.model.group_norm import fused_group_norm, group_norm


def streamline(
    unet: UNet2DConditionModel, dtype: torch.dtype, layout: torch.memory_format, *, fused: bool = False
) -> None:
    """Let a U-Net compute in `dtype`, in which its frozen weights are, and in a layout; its mathematics stay the same.

    What it predicts comes out in float32, so that losses, guidance and the sampler's sums are not rounded.
    fused: whether group normalisation is one kernel, see `group_norm.can_fuse`.
    """
    if layout is not torch.contiguous_format:  # in which weights are loaded
        unet.to(memory_format=layout)
    unet.register_forward_pre_hook(lambda _, arguments: (arguments[0].to(dtype, memory_format=layout), *arguments[1:]))
    unet.register_forward_hook(lambda _, __, output: (output[0].float(),))
    leaner: tuple[Any, ...] = (_Linear, _Conv2d, _LayerNorm, LeanGroupNorm, _Lora, _Resnet, _Transformer)
    of_class = {kind.__bases__[0]: kind for kind in leaner}
    for module in unet.modules():
        if (kind := of_class.get(type(module))) and kind.replaces(module):
            module.__class__ = kind
        if isinstance(module, LeanGroupNorm):
            module.fused = fused


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters(recurse=False))


class _Cast(torch.autograd.Function):
    """Two weights in float32, in another type, in one kernel each way."""

    # Not of `*weights`, in which the compiler loses count where no gradient is asked for.
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, down: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _copied((down, up), dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, *_copied(gradients, torch.float32)


def _copied(tensors: tuple[torch.Tensor, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)


class _Linear(nn.Linear):
    """With weights that learn."""

    replaces = staticmethod(_learns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class _Conv2d(nn.Conv2d):
    """With weights that learn."""

    replaces = staticmethod(_learns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class _LayerNorm(nn.LayerNorm):
    """With weights that learn."""

    replaces = staticmethod(_learns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class LeanGroupNorm(nn.GroupNorm):
    """fused: whether it is one kernel, see `group_norm.can_fuse`."""

    fused: bool

    @staticmethod
    def replaces(_: nn.Module) -> bool:
        return True

    def forward(self, x: torch.Tensor, *, silu: bool = False) -> torch.Tensor:
        norm = fused_group_norm if self.fused else group_norm
        return norm(x, self.num_groups, self.weight, self.bias, self.eps, silu=silu)


class _Lora(LoraLinear):
    """x·Wᵀ + b + x·Aᵀ·Bᵀ, of which PEFT scales the last, by 1, and adds it, each in a kernel of its own."""

    @staticmethod
    def replaces(layer: LoraLinear) -> bool:
        return layer.scaling == {"default": 1.0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down, up = _Cast.apply(x.dtype, self.lora_A["default"].weight, self.lora_B["default"].weight)
        frozen = self.base_layer(x)
        return torch.addmm(frozen.flatten(0, -2), F.linear(x, down).flatten(0, -2), up.T).view_as(frozen)


class _Resnet(ResnetBlock2D):
    @staticmethod
    def replaces(block: ResnetBlock2D) -> bool:
        """Whether it is as in Stable Diffusion, which neither scales, drops nor resamples anything here."""
        plain = block.upsample is None and block.downsample is None and block.time_embedding_norm == "default"
        silu = isinstance(block.nonlinearity, nn.SiLU) and block.time_emb_proj is not None and not block.skip_time_act
        return plain and silu and block.dropout.p == 0 and block.output_scale_factor == 1

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        hidden = self.conv1(self.norm1(input_tensor, silu=True))
        hidden = hidden + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = self.conv2(self.norm2(hidden, silu=True))
        return hidden + (input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor))


class _Transformer(Transformer2DModel):
    @staticmethod
    def replaces(_: nn.Module) -> bool:
        return True

    def _get_output_for_continuous_inputs(
        self,
        hidden_states: torch.Tensor,
        residual: torch.Tensor,
        batch_size: int,
        height: int,
        width: int,
        inner_dim: int,
    ) -> torch.Tensor:
        """diffusers', which makes a copy in the other memory layout here."""
        if self.use_linear_projection:
            hidden_states = self.proj_out(hidden_states)
        hidden_states = hidden_states.reshape(batch_size, height, width, -1).permute(0, 3, 1, 2)
        if not self.use_linear_projection:
            hidden_states = self.proj_out(hidden_states)
        return residual + hidden_states  # in the layout of the first
