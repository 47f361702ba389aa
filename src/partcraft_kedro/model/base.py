"""Loading a base model: the embedded `tiny`, a local folder, or a hub id, all by the same code."""

from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from partcraft_kedro.allocator import keep_freed_memory
from partcraft_kedro.devices import resolve_device
from partcraft_kedro.errors import UserError
from partcraft_kedro.model.attention import attend_fused, attend_in_float32, attention_layers
from partcraft_kedro.model.group_norm import can_fuse
from partcraft_kedro.model.streamlined import streamline
from partcraft_kedro.weights import (
    UNET,
    XL,
    explain_failure,
    load_whole,
    refuse_not_finite,
    refuse_other_pipelines,
    resolve_base,
)

_ONE_BY_ONE = 256  # pixels of a picture from which the VAE takes one a pass: one of 512 pixels takes 0.75 GiB to decode

Base: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline
_NETWORKS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


def load_base(model: str, device: str = "auto", size: int | None = None, config: str | None = None) -> Base:
    """A frozen Stable Diffusion pipeline, 1, 2 or XL, in float32, with the sampler it was saved with; safetensors only.

    model: `tiny`, a folder in diffusers' layout, a hub id, or a checkpoint in one file; device: as in `resolve_device`;
    size: of its pictures in pixels, if not that which it was trained on; config: as `base.config`. On a CPU the process
    from then on keeps memory that it frees.
    Raises UserError if it cannot be loaded whole, is another pipeline's, or if part tokens cannot be trained on it.
    """
    folder = resolve_base(model, config)
    diffusers.utils.logging.disable_progress_bar()
    # It warns of every part of the pipeline that LoRA leaves alone, and logs errors that it raises.
    diffusers.utils.logging.set_verbosity(diffusers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    told = f"base.model={model!r}"
    load = _load_file if Path(model).is_file() else _load_folder
    try:
        pipeline = load(model, folder, told)
    except UserError:
        raise
    except Exception as error:  # what a folder that is no such model raises depends on what it is instead
        raise explain_failure(model, "base.model", "a Stable Diffusion model", error) from error
    for tokenizer, text_encoder in zip(tokenizers(pipeline), text_encoders(pipeline), strict=True):
        if len(tokenizer) != (words := text_encoder.config.vocab_size):  # without files it is empty
            has = f"a tokenizer of {len(tokenizer)} words for the {words} of its text encoder"
            raise UserError(f"{told} has {has}: give a whole model.")
    _refuse_unlike(pipeline, model)
    if size is not None:
        _draw_in(size, pipeline)
    pipeline.set_progress_bar_config(disable=True)
    if picture_size(pipeline) >= _ONE_BY_ONE:
        pipeline.vae.enable_slicing()
    for module in (pipeline.unet, pipeline.vae, *text_encoders(pipeline)):
        module.eval().requires_grad_(False)
    device = resolve_device(device)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    return pipeline.to(device)


def _load_folder(model: str, folder: str, told: str) -> Base:
    """folder: or a hub id; told: what a user is told that it is."""
    refuse_other_pipelines(model, model, kind := StableDiffusionPipeline.load_config(folder)["_class_name"])
    networks = _NETWORKS | ({"text_encoder_2": CLIPTextModelWithProjection} if kind == XL else {})
    loaded = {name: load_whole(network, folder, told, subfolder=name) for name, network in networks.items()}
    return _pipeline_of(kind).from_pretrained(folder, **loaded, **_without(kind))


def _load_file(model: str, config: str, told: str) -> Base:
    """A checkpoint under the names of the original Stable Diffusion. config: the folder or hub id of its settings."""
    try:
        kind = StableDiffusionPipeline.load_config(config)["_class_name"]
    except Exception as error:  # as in `load_base`
        raise explain_failure(config, "base.config", "a Stable Diffusion model", error) from error
    refuse_other_pipelines(model, config, kind)
    whole = "give a whole model, and base.config of its kind"
    unused = _without(kind)
    try:
        pipeline = _pipeline_of(kind).from_single_file(model, config=config, torch_dtype=torch.float32, **unused)
    except NotImplementedError as error:  # torch's, of a network with weights that have no content
        raise UserError(f"{told} lacks weights of its U-Net or VAE: {whole}.") from error
    for network in (pipeline.unet, pipeline.vae, *text_encoders(pipeline)):
        weights = network.state_dict()
        if missing := [name for name, weight in weights.items() if weight.is_meta]:
            raise UserError(f"{told} lacks weights of its {type(network).__name__}, such as {missing[0]}: {whole}.")
        refuse_not_finite(weights, told)
    with safe_open(model, "pt") as file:
        named = [name for name in file.keys() if name.startswith(UNET)]  # noqa: SIM118
    if len(named) > len(pipeline.unet.state_dict()):
        raise UserError(f"{told} has a larger U-Net than base.config={config!r} says: give that of its kind.")
    return pipeline


def _pipeline_of(kind: str) -> type[Base]:
    return StableDiffusionXLPipeline if kind == XL else StableDiffusionPipeline


def _without(kind: str) -> dict[str, Any]:
    """What a pipeline is loaded without."""
    unused: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    further = {"add_watermarker": False} if kind == XL else {"safety_checker": None, "requires_safety_checker": False}
    return unused | further


def text_encoders(pipeline: Base) -> list[CLIPTextModel]:
    """One, or SDXL's two."""
    second = [pipeline.text_encoder_2] if isinstance(pipeline, StableDiffusionXLPipeline) else []
    return [pipeline.text_encoder, *second]


def tokenizers(pipeline: Base) -> list[CLIPTokenizer]:
    """Of each text encoder."""
    second = [pipeline.tokenizer_2] if isinstance(pipeline, StableDiffusionXLPipeline) else []
    return [pipeline.tokenizer, *second]


def _draw_in(size: int, pipeline: Base) -> None:
    """Let pictures have another size. Raises UserError for one that the U-Net cannot halve to its depth and back."""
    step = pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
    if size % step:
        raise UserError(f"base.size={size} is not to be had of this model: give a multiple of {step}.")
    pipeline.unet.register_to_config(sample_size=size // pipeline.vae_scale_factor)


def _refuse_unlike(pipeline: Base, model: str) -> None:
    """Raise UserError for a model that draws, and yet could not be trained: before hours are spent on its latents."""
    unet, vae = pipeline.unet.config, pipeline.vae.config
    if not attention_layers(pipeline.unet):
        reason = "its U-Net attends to no words at a quarter of its latents' resolution, where the attention loss reads"
    elif unet.in_channels != vae.latent_channels:
        reason = f"its U-Net takes {unet.in_channels} channels, as for inpainting, its VAE has {vae.latent_channels}"
    elif not isinstance(unet.sample_size, int):
        reason = f"its pictures are not square, but {unet.sample_size}"
    else:
        return
    raise UserError(f"base.model={model!r} cannot learn parts, as {reason}: give a Stable Diffusion 1, 2 or XL.")


def compute_in(pipeline: Base, dtype: torch.dtype) -> None:
    """Let text encoder and U-Net compute in `dtype`; what learns, and the VAE, stay in float32.

    Without `torch.autocast`, which takes a copy of every weight that learns, and on CUDA norms to float32. On a CPU,
    attention's scores are in float32.
    """
    unet, device = pipeline.unet, pipeline.unet.device.type
    cast_frozen(pipeline, dtype)
    # What tensor cores, and a CPU's float32 convolutions, are faster in.
    channels_last = device == "cuda" or dtype == torch.float32
    layout = torch.channels_last if channels_last else torch.contiguous_format
    streamline(unet, dtype, layout, fused=can_fuse(unet.device))
    if device == "cpu" and dtype != torch.float32:
        attend_in_float32(unet, *text_encoders(pipeline))
    else:
        attend_fused(unet)


def cast_frozen(pipeline: Base, dtype: torch.dtype) -> None:
    """Bring the frozen weights of text encoder and U-Net to `dtype`."""
    for module in (pipeline.unet, *text_encoders(pipeline)):
        for parameter in module.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def picture_size(pipeline: Base) -> int:
    """The side, in pixels, of the pictures a base model draws."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor
