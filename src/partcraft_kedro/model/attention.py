"""Reading the cross-attention of part tokens at a quarter of the latents' resolution; attention on a CPU."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn
from transformers import AttentionInterface, CLIPTextModel

_LEVEL = 2  # times the latents are halved where attention is read
# Locations × tokens up to which attention written out is faster on a CPU than fused, and most of all compiled; beyond,
# its memory would matter.
_WRITTEN_OUT = 256 * 256
_TEXT_ATTENTION = "partcraft_float32"  # in transformers' registry


def attention_layers(unet: UNet2DConditionModel) -> list[str]:
    """The cross-attention layers at a quarter of the latents' resolution.

    Of Stable Diffusion 1.5 these are the five of 16×16 that the paper reads (section A of its supplementary material),
    of 2.1 as many at 24×24, of SDXL all sixty at 32×32.
    """
    levels = len(unet.config.block_out_channels)
    blocks = [f"down_blocks.{_LEVEL}.", f"up_blocks.{levels - 1 - _LEVEL}."]
    if levels == _LEVEL + 1:
        blocks.append("mid_block.")
    layers = (name.removesuffix(".processor") for name in unet.attn_processors)
    return [layer for layer in layers if layer.endswith(".attn2") and layer.startswith(tuple(blocks))]


class AttentionCapture:
    """Keeps each part token's attention map during the forward pass of a U-Net that has `attention_layers`.

    These compute their probabilities explicitly and keep the watched tokens' columns; every other
    layer stays as it is. Use as a context manager: leaving restores the processors.
    """

    def __init__(self, unet: UNet2DConditionModel):
        processors = unet.attn_processors
        self._unet = unet
        self._original = processors
        self._capturing = {layer: _CapturingProcessor() for layer in attention_layers(unet)}
        replaced = {f"{layer}.processor": processor for layer, processor in self._capturing.items()}
        unet.set_attn_processor(processors | replaced)

    def __enter__(self) -> "AttentionCapture":
        return self

    def __exit__(self, *_: object) -> None:
        self._unet.set_attn_processor(dict(self._original))

    def watch(self, columns: torch.Tensor | None) -> None:
        """Choose the tokens to keep: (batch, part) long positions in the prompt, -1 where a part has none.

        With None nothing is kept, as when pictures are sampled in the middle of training.
        """
        for processor in self._capturing.values():
            processor.columns = columns
            processor.kept = None

    def maps(self) -> torch.Tensor:
        """Ā of Eq. 5: the mean over heads and layers, (batch, part, height, width) float32."""
        maps = torch.stack([processor.map() for processor in self._capturing.values()]).mean(0)
        side = math.isqrt(maps.shape[-1])
        return maps.unflatten(-1, (side, side))


class _CapturingProcessor(nn.Module):
    """diffusers' AttnProcessor2_0 with the softmax written out, so that its columns can be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: torch.Tensor | None = None
        self.kept: torch.Tensor | None = None

    def forward(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,  # Stable Diffusion masks no token
    ) -> torch.Tensor:
        query, key, value = _project(attn, hidden_states, encoder_hidden_states)
        probabilities = _probabilities(query, key, attn.scale)
        if self.columns is not None:
            over_heads = probabilities.mean(1).transpose(1, 2)  # (batch, token, location)
            index = self.columns.clamp(min=0)[..., None].expand(-1, -1, over_heads.shape[-1])
            self.kept = over_heads.gather(1, index) * (self.columns >= 0)[..., None]

        return _merge(attn, probabilities.to(value.dtype) @ value)

    def map(self) -> torch.Tensor:
        """What the forward pass since `watch` has kept, (batch, part, location)."""
        if self.kept is None:
            raise RuntimeError("No token was watched in a forward pass.")
        return self.kept


def attend_in_float32(unet: UNet2DConditionModel, *text_encoders: CLIPTextModel) -> None:
    """Let attention compute scores and softmax in float32 where the networks compute in bfloat16: for a CPU.

    There torch's fused kernel takes up to seven times as long for its gradient in bfloat16.
    """
    _attend_by(_attention, unet)
    AttentionInterface.register(_TEXT_ATTENTION, _attend_to_text)
    for text_encoder in text_encoders:
        text_encoder.set_attn_implementation(_TEXT_ATTENTION)


def attend_fused(unet: UNet2DConditionModel) -> None:
    """Let attention be torch's fused kernel and its projections, and nothing else: for a GPU, and for float32.

    diffusers divides what comes out of each layer by 1, in a kernel of its own each way.
    """
    _attend_by(F.scaled_dot_product_attention, unet)


def _attend_by(attention: Callable[..., torch.Tensor], unet: UNet2DConditionModel) -> None:
    # Attention elsewhere normalises groups and adds residuals, which this processor does not.
    processor = _Processor(attention)
    processors = {
        name: processor if ".transformer_blocks." in name else own for name, own in unet.attn_processors.items()
    }
    unet.set_attn_processor(processors)
    for name in unet.attn_processors:
        if name.endswith(".attn1.processor"):
            _join_projections(unet.get_submodule(name.removesuffix(".processor")))


def _join_projections(attn: Attention) -> None:
    """Let self-attention project in one product, where all is frozen: its weights then lie one behind the other."""
    projections = (attn.to_q, attn.to_k, attn.to_v)
    plain = all(type(layer) is nn.Linear and layer.bias is None for layer in projections)
    if plain and not attn.is_cross_attention and not any(layer.weight.requires_grad for layer in projections):
        joint = torch.cat([layer.weight for layer in projections])
        attn.register_buffer("to_qkv", joint, persistent=False)
        for layer, weight in zip(projections, joint.chunk(3), strict=True):
            layer.weight.data = weight


class _Processor:
    """diffusers' AttnProcessor2_0 for transformer blocks.

    attention: of query, key, value, (batch, head, location or token, channel), and `scale`.
    """

    def __init__(self, attention: Callable[..., torch.Tensor]):
        self._attention = attention

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,  # Stable Diffusion masks no token
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return _merge(attn, self._attention(*_project(attn, hidden_states, context), scale=attn.scale))


def _attend_to_text(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None = None,  # a CLIP text encoder masks what comes later, no padding
    *,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention, as transformers calls it; the fused kernel knows the mask."""
    return _fused(query, key, value, scale=scaling, is_causal=True).transpose(1, 2).contiguous(), None


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float) -> torch.Tensor:
    """softmax(QKᵀ·scale)·V, (batch, head, location, channel), in the type of what comes in."""
    if query.shape[2] * key.shape[2] > _WRITTEN_OUT:
        return _fused(query, key, value, scale=scale)
    return _probabilities(query, key, scale).to(value.dtype) @ value


def _probabilities(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """softmax(QKᵀ·scale), (batch, head, location, token) float32.

    Fused attention sums in float32 too: bfloat16 would round a score of 16 to an eighth, and its share to 6%.
    """
    # The product takes them contiguous: so each is copied once, and the scale meets channels, of which there are few.
    query, key = (tensor.to(torch.float32, memory_format=torch.contiguous_format) for tensor in (query, key))
    with torch.autocast(query.device.type, enabled=False):
        return (query * scale @ key.transpose(-1, -2)).softmax(-1)


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, is_causal: bool = False
) -> torch.Tensor:
    """softmax(QKᵀ·scale)·V by torch's fused kernel, all in float32, in the type of what comes in.

    is_causal: no token attends to a later one.
    """
    with torch.autocast(query.device.type, enabled=False):
        mixed = F.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), scale=scale, is_causal=is_causal
        )
    return mixed.to(query.dtype)


def _project(attn: Attention, hidden_states: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Query, key, value: (batch, head, location or token, channel)."""
    if hasattr(attn, "to_qkv"):
        projected = F.linear(hidden_states, attn.to_qkv).chunk(3, -1)
    else:
        projected = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
    # Not by `unflatten`, at which torch 2.11's compiler breaks its graph.
    apart = (tensor.reshape(*tensor.shape[:2], attn.heads, tensor.shape[2] // attn.heads) for tensor in projected)
    return tuple(tensor.transpose(1, 2) for tensor in apart)


def _merge(attn: Attention, mixed: torch.Tensor) -> torch.Tensor:
    """The heads' (batch, head, location, channel) to the layer's output, (batch, location, channel)."""
    return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))
