"""LoRA and word embeddings as kohya-ss/sd-scripts writes them, which AUTOMATIC1111, Forge and ComfyUI read.

Names of modules: `LoRANetwork` in sd-scripts' networks/lora.py. Word embeddings: `save_weights` in its
train_textual_inversion.py. Both together in one file: modules of the name `bundle_emb`, as `load_network` of
AUTOMATIC1111's extensions-builtin/Lora/networks.py reads them (its pull request 13568), and OneTrainer and SD.Next.

A bundle is for AUTOMATIC1111 alone. Forge leaves out all of a file with more than twelve keys that it does not know
(`load_lora_for_models` in its extensions-builtin/sd_forge_lora/networks.py), ComfyUI warns of each (`load_lora` in its
comfy/lora.py), and diffusers refuses them.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from partcraft_kedro.export.adapter import Adapter, Base

_DESCRIPTION = "Parts of pictures, learnt by PartCraft: a prompt names one word for each part."


def to_kohya(lora: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """LoRA of a U-Net from diffusers' names to kohya's, with `alpha`, as trained, for each module.

    diffusers' own `convert_state_dict_to_kohya` writes the rank there, whatever alpha was.
    """
    tensors = {}
    for name, weight in lora.items():
        module, side = name.removeprefix("unet.").removesuffix(".weight").rsplit(".lora.", 1)
        kohya = f"lora_unet_{module.replace('.', '_')}"
        tensors[f"{kohya}.lora_{side}.weight"] = weight
        tensors[f"{kohya}.alpha"] = torch.tensor(alpha)
    return tensors


def bundled(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Word embeddings by word, each (1, width), under the keys that they have in a file with LoRA."""
    return {f"bundle_emb.{word}.string_to_param.*": vector for word, vector in embeddings.items()}


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
        "ss_v2": str(_is_v2(adapter)),
        "ss_base_model_version": _version(adapter, base),
        "ss_sd_model_name": Path(base.name).name,
        "ss_resolution": f"({base.side}, {base.side})",
        "ss_tag_frequency": json.dumps({title: counts}),
        **{name: str(value) for name, value in known.items() if value is not None},
        **_model_spec(adapter, base, title, "lora"),
        "modelspec.trigger_phrase": prompt,
    }


def embedding_header(adapter: Adapter, base: Base, word: str) -> dict[str, str]:
    """The metadata of one word's embedding."""
    spec = _model_spec(adapter, base, word, "textual-inversion")
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


def _is_v2(adapter: Adapter) -> bool:
    """Whether the base is a Stable Diffusion 2, by the width of its text encoder."""
    return adapter.width == 1024


def _version(adapter: Adapter, base: Base) -> str:
    """The family of the base as sd-scripts calls it: `get_model_version_str_for_sd1_sd2`, library/model_util.py."""
    v = "_v" if base.prediction == "v_prediction" else ""
    return f"sd_v2{v}" if _is_v2(adapter) else f"sd_v1{v}"


def _model_spec(adapter: Adapter, base: Base, title: str, kind: str) -> dict[str, str]:
    """The SAI Model Spec's keys (github.com/Stability-AI/ModelSpec) that LoRA and embeddings have in common."""
    family = "stable-diffusion-v1"
    if _is_v2(adapter):
        family = "stable-diffusion-v2-768-v" if base.prediction == "v_prediction" else "stable-diffusion-v2-512"
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
