"""Loading a base model: the embedded `tiny`, a local folder, or a hub id, all by the same code."""

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from partcraft_kedro.allocator import keep_freed_memory
from partcraft_kedro.devices import resolve_device
from partcraft_kedro.errors import UserError
from partcraft_kedro.model.attention import attend_in_float32, has_attention_layers
from partcraft_kedro.weights import explain_failure, load_whole, refuse_other_pipelines, resolve_model

_ONE_BY_ONE = 256  # pixels of a picture from which the VAE takes one a pass: one of 512 pixels takes 0.75 GiB to decode

_NETWORKS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


def load_base(model: str, device: str = "auto") -> StableDiffusionPipeline:
    """A frozen Stable Diffusion pipeline in float32, with the sampler it was saved with; safetensors only.

    model: `tiny`, a folder in diffusers' layout, or a hub id; device: as in `resolve_device`. On a CPU the process from
    then on keeps memory that it frees.
    Raises UserError if it cannot be loaded whole, is another pipeline's, or if part tokens cannot be trained on it.
    """
    folder = resolve_model(model, "base", "base.model")
    diffusers.utils.logging.disable_progress_bar()
    # It warns of every part of the pipeline that LoRA leaves alone, and logs errors that it raises.
    diffusers.utils.logging.set_verbosity(diffusers.utils.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    told = f"base.model={model!r}"
    try:
        refuse_other_pipelines(model, StableDiffusionPipeline.load_config(folder)["_class_name"])
        networks = {name: load_whole(network, folder, told, subfolder=name) for name, network in _NETWORKS.items()}
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, requires_safety_checker=False, **networks
        )
    except UserError:
        raise
    except Exception as error:  # what a folder that is no such model raises depends on what it is instead
        raise explain_failure(model, "base.model", "a Stable Diffusion model", error) from error
    if len(pipeline.tokenizer) != (words := pipeline.text_encoder.config.vocab_size):  # without files it is empty
        has = f"a tokenizer of {len(pipeline.tokenizer)} words for the {words} of its text encoder"
        raise UserError(f"{told} has {has}: give a whole model.")
    _refuse_unlike(pipeline, model)
    pipeline.set_progress_bar_config(disable=True)
    if picture_size(pipeline) >= _ONE_BY_ONE:
        pipeline.vae.enable_slicing()
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    device = resolve_device(device)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    return pipeline.to(device)


def _refuse_unlike(pipeline: StableDiffusionPipeline, model: str) -> None:
    """Raise UserError for a model that draws, and yet could not be trained: before hours are spent on its latents."""
    unet, vae = pipeline.unet.config, pipeline.vae.config
    if not has_attention_layers(pipeline.unet):
        reason = "its U-Net lacks the five cross-attention layers that the attention loss reads"
    elif unet.in_channels != vae.latent_channels:
        reason = f"its U-Net takes {unet.in_channels} channels, as for inpainting, its VAE has {vae.latent_channels}"
    elif not isinstance(unet.sample_size, int):
        reason = f"its pictures are not square, but {unet.sample_size}"
    else:
        return
    raise UserError(f"base.model={model!r} cannot learn parts, as {reason}: give a Stable Diffusion 1 or 2.")


def compute_in(pipeline: StableDiffusionPipeline, dtype: torch.dtype) -> None:
    """Bring the frozen weights of text encoder and U-Net to `dtype`; what learns, and the VAE, stay in float32.

    To be called under `torch.autocast`. The U-Net's prediction comes out in float32, so that losses, guidance and
    the sampler's sums are not rounded; on a CPU, attention's scores are computed in float32.
    """
    unet = pipeline.unet
    for module in (unet, pipeline.text_encoder):
        for parameter in module.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
    unet.register_forward_hook(lambda _, __, output: (output[0].float(),))
    if unet.device.type == "cpu" and dtype != torch.float32:
        attend_in_float32(unet, pipeline.text_encoder)
    # What tensor cores, and a CPU's float32 convolutions, are faster in.
    if unet.device.type == "cuda" or dtype == torch.float32:
        unet.to(memory_format=torch.channels_last)


def picture_size(pipeline: StableDiffusionPipeline) -> int:
    """The side, in pixels, of the pictures a base model was trained on."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor
