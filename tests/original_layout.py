"""Weights of a pipeline under the names of the original Stable Diffusion, as checkpoints in one file have them.

By the structure of CompVis' and Stability AI's networks: U-Net and VAE of latent-diffusion (openaimodel.py and model.py
in ldm/modules/diffusionmodules), the text encoders of SDXL in generative-models (sgm/modules/encoders/modules.py), and
open_clip's transformer (open_clip/transformer.py), whose attention keeps its three projections in one weight.
"""

import re

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

Weights = dict[str, Tensor]
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def checkpoint_of(pipeline, open_clip: bool = False) -> Weights:
    """Of a whole pipeline; open_clip: whether its text encoder is one of open_clip's, as in Stable Diffusion 2. SDXL's
    second one always is."""
    text = {f"transformer.{name}": weight for name, weight in _of_clip(pipeline.text_encoder).items()}
    of_open_clip = {f"model.{name}": weight for name, weight in _of_open_clip(pipeline.text_encoder).items()}
    encoders = {"cond_stage_model": of_open_clip if open_clip else text}
    if hasattr(pipeline, "text_encoder_2"):
        second = _of_open_clip(pipeline.text_encoder_2)
        encoders = {
            "conditioner.embedders.0": text,
            "conditioner.embedders.1": {f"model.{name}": weight for name, weight in second.items()},
        }
    networks = {
        "model.diffusion_model": _of_unet(pipeline.unet),
        "first_stage_model": _of_vae(pipeline.vae),
        **encoders,
    }
    return {
        f"{network}.{name}": weight.clone().contiguous()
        for network, weights in networks.items()
        for name, weight in weights.items()
    }


def _renamed(network: nn.Module, beginnings: dict[str, str]) -> Weights:
    """Each weight's longest beginning replaced; its name is unknown here if it has none."""
    weights = {}
    for name, weight in network.state_dict().items():
        begins = max((new for new in beginnings if name.startswith(f"{new}.")), key=len)
        weights[beginnings[begins] + name.removeprefix(begins)] = weight
    return weights


def _of_unet(unet: UNet2DConditionModel) -> Weights:
    """Blocks are counted through: a layer of each resolution is one, and so is a downsampling."""
    places = dict(_OUTSIDE)

    def layer(block: str, number: int, place: str) -> None:
        places.update({f"{block}.resnets.{number}.{new}": f"{place}.0.{old}" for new, old in _RESNET.items()})
        places[f"{block}.attentions.{number}"] = f"{place}.1"

    appended = 1
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            layer(f"down_blocks.{i}", j, f"input_blocks.{appended}")
            appended += 1
        if block.downsamplers:
            places[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{appended}.0.op"
            appended += 1
    for number, place in ((0, "middle_block.0"), (1, "middle_block.2")):
        places |= {f"mid_block.resnets.{number}.{new}": f"{place}.{old}" for new, old in _RESNET.items()}
    places["mid_block.attentions.0"] = "middle_block.1"
    appended = 0
    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            layer(f"up_blocks.{i}", j, f"output_blocks.{appended}")
            appended += 1
        if block.upsamplers:
            behind = 2 if getattr(block, "attentions", None) else 1
            places[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{appended - 1}.{behind}.conv"
    return _renamed(unet, places)


def _of_vae(vae: AutoencoderKL) -> Weights:
    """The decoder's resolutions are counted from the finest; attention is by 1×1 convolutions."""
    last = len(vae.decoder.up_blocks) - 1
    weights = {}
    for name, weight in vae.state_dict().items():
        old = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        old = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", old)
        old = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", old)
        old = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{last - int(found[1])}.block", old)
        old = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", old)
        old = old.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in old:
            old = old.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            old = old.replace("to_out.0", "proj_out")
            old = re.sub(r"to_([qkv])\.", r"\1.", old)
            weight = weight[:, :, None, None] if weight.ndim == 2 else weight
        weights[old] = weight
    return weights


def _of_clip(text_encoder: nn.Module) -> Weights:
    return {
        name if name.startswith("text_") else f"text_model.{name}": weight
        for name, weight in text_encoder.state_dict().items()
    }


def _of_open_clip(text_encoder: nn.Module) -> Weights:
    weights, of_clip = {}, _of_clip(text_encoder)
    outside = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    layer = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    layer["self_attn.out_proj"] = "attn.out_proj"
    for name, weight in of_clip.items():
        if name in outside:
            weights[outside[name]] = weight
        elif name == "text_projection.weight":
            weights["text_projection"] = weight.T
        elif found := re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            number, part, kind = found.groups()
            place = f"transformer.resblocks.{number}"
            if part in layer:
                weights[f"{place}.{layer[part]}.{kind}"] = weight
            elif part == "self_attn.q_proj":
                three = [of_clip[name.replace("q_proj", projection)] for projection in ("q_proj", "k_proj", "v_proj")]
                weights[f"{place}.attn.in_proj_{kind}"] = torch.cat(three)
    return weights
