"""LoRA and word embeddings as kohya-ss/sd-scripts writes them, which AUTOMATIC1111, Forge and ComfyUI read.

Names of modules: `LoRANetwork` in sd-scripts' networks/lora.py; of SDXL they are those of its original U-Net, which
library/sdxl_original_unet.py rebuilds and `make_unet_conversion_map` in library/sdxl_model_util.py sets beside
diffusers'. Word embeddings: `save_weights` in its train_textual_inversion.py and sdxl_train_textual_inversion.py. Both
together in one file: modules of the name `bundle_emb`, as `load_network` of AUTOMATIC1111's
extensions-builtin/Lora/networks.py reads them (its pull request 13568), and OneTrainer and SD.Next.

A bundle is for AUTOMATIC1111 alone. Forge leaves out all of a file with more than twelve keys that it does not know
(`load_lora_for_models` in its extensions-builtin/sd_forge_lora/networks.py), ComfyUI warns of each (`load_lora` in its
comfy/lora.py), and diffusers refuses them.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from partcraft_kedro.export.adapter import Adapter, Base

_DESCRIPTION = "Parts of pictures, learnt by PartCraft: a prompt names one word for each part."


def to_kohya(lora: Mapping[str, Tensor], alpha: float, base: Base) -> dict[str, Tensor]:
    """LoRA of a U-Net from diffusers' names to kohya's, with `alpha`, as trained, for each module.

    diffusers' own `convert_state_dict_to_kohya` writes the rank there, whatever alpha was, and knows no SDXL.
    """
    tensors = {}
    for name, weight in lora.items():
        module, side = name.removeprefix("unet.").removesuffix(".weight").rsplit(".lora.", 1)
        if base.family == "XL":
            module = _as_original(module, base.unet["layers_per_block"])
        kohya = f"lora_unet_{module.replace('.', '_')}"
        tensors[f"{kohya}.lora_{side}.weight"] = weight
        tensors[f"{kohya}.alpha"] = torch.tensor(alpha)
    return tensors


def _as_original(module: str, layers_per_block: int) -> str:
    """A module within a transformer, from diffusers' name to that of the original U-Net.

    There blocks are counted through, each layer one: `input_blocks` from its first convolution on, with a
    downsampling behind each of diffusers' blocks, `output_blocks` with one layer more for each. In a block, 0 is
    the convolutions, 1 the transformer.
    """
    place = re.match(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.", module)
    assert place, module  # LoRA is of attention alone
    side, block, layer = place[1], int(place[2] or 0), int(place[3])
    number = block * (layers_per_block + 1) + layer
    blocks = {"down": f"input_blocks.{number + 1}", "mid": "middle_block", "up": f"output_blocks.{number}"}
    return f"{blocks[side]}.1.{module[place.end() :]}"


def entries_of(embedding: Tensor, base: Base) -> dict[str, Tensor]:
    """A word's embedding (width,) under the keys that it has in a file of its own, each (1, width) in float32: of SDXL
    `clip_l` and `clip_g`, after its text encoders."""
    keys = ("clip_l", "clip_g") if base.family == "XL" else ("emb_params",)
    rows = embedding[None].float().split(list(base.widths), dim=1)
    return {key: row.contiguous() for key, row in zip(keys, rows, strict=True)}


def bundled(embeddings: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Entries of words, by word, under the keys that they have in a file with LoRA."""
    names = {"emb_params": "string_to_param.*"}
    return {
        f"bundle_emb.{word}.{names.get(key, key)}": row
        for word, entries in embeddings.items()
        for key, row in entries.items()
    }


def lora_header(adapter: Adapter, base: Base, title: str, counts: Mapping[str, int], prompt: str) -> dict[str, str]:
    """A header's metadata: what kohya's trainer writes, as far as it is known here, and the SAI Model Spec's.

    title: also the file's name, since AUTOMATIC1111 takes it for the name in `<lora:…>`; counts: how many pictures
    show each word, which AUTOMATIC1111 lists as the tags of training; prompt: an example.
    """
    training = adapter.settings["training"]
    known = {
        "ss_learning_rate": training.get("learning_rate"),
        "ss_unet_lr": training.get("learning_rate"),
        "ss_max_train_steps": training.get("steps"),
        "ss_steps": training.get("steps"),
        "ss_lr_warmup_steps": training.get("warmup_steps"),
        "ss_total_batch_size": training.get("batch_size"),
        "ss_num_train_images": training.get("pictures"),
        "ss_max_grad_norm": training.get("max_gradient_norm"),
        "ss_min_snr_gamma": training.get("snr_gamma"),
        "ss_seed": training.get("seed"),
    }
    return {
        "ss_output_name": title,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(adapter.rank),
        "ss_network_alpha": str(adapter.alpha),
        "ss_v2": str(base.family == "2"),
        "ss_base_model_version": _version(base),
        "ss_sd_model_name": Path(base.name).name,
        "ss_resolution": f"({base.side}, {base.side})",
        "ss_tag_frequency": json.dumps({title: counts}),
        **{name: str(value) for name, value in known.items() if value is not None},
        **_model_spec(base, title, "lora"),
        "modelspec.trigger_phrase": prompt,
    }


def embedding_header(base: Base, word: str) -> dict[str, str]:
    """The metadata of one word's embedding."""
    spec = _model_spec(base, word, "textual-inversion")
    return spec | {"modelspec.trigger_phrase": word, "modelspec.is_negative_embedding": "false"}


def save_with_hash(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file with the digest of its tensors in its header.

    As the SAI Model Spec 1.0.1 has it, `modelspec.hash_sha256`: of all bytes after the header; AUTOMATIC1111 looks for
    the same digest as `sshs_model_hash`, which saves it reading the file.
    """
    content = save(dict(tensors))
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    path.write_bytes(save(dict(tensors), {"format": "pt", **header, **hashes}))


def _version(base: Base) -> str:
    """The family of the base as sd-scripts calls it: `get_model_version_str_for_sd1_sd2`, library/model_util.py, and
    `MODEL_VERSION_SDXL_BASE_V1_0`, library/sdxl_model_util.py."""
    if base.family == "XL":
        return "sdxl_base_v1-0"
    return f"sd_v{base.family}{'_v' if base.prediction == 'v_prediction' else ''}"


def _model_spec(base: Base, title: str, kind: str) -> dict[str, str]:
    """The SAI Model Spec's keys (github.com/Stability-AI/ModelSpec) that LoRA and embeddings have in common."""
    family = {
        "1": "stable-diffusion-v1",
        "2": "stable-diffusion-v2-768-v" if base.prediction == "v_prediction" else "stable-diffusion-v2-512",
        "XL": "stable-diffusion-xl-v1-base",
    }[base.family]
    predictions = {"epsilon": "epsilon", "v_prediction": "v"}  # of others the spec says nothing
    predicted = {"modelspec.prediction_type": predictions[base.prediction]} if base.prediction in predictions else {}
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family}/{kind}",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{base.side}x{base.side}",
        "modelspec.description": _DESCRIPTION,
        "modelspec.date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.tags": "partcraft,parts",
        **predicted,
    }
