"""A base model with part tokens and LoRA: what is trained, saved, loaded and sampled from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from partcraft_kedro.devices import compute_type
from partcraft_kedro.errors import UserError, first_line
from partcraft_kedro.model.base import Base, compute_in, load_base, picture_size, text_encoders
from partcraft_kedro.model.injection import Conditioning, PartPrompts
from partcraft_kedro.model.part_encoder import PartEncoder
from partcraft_kedro.prompts import PartToken
from partcraft_kedro.randomness import derive_seed
from partcraft_kedro.weights import base_fingerprint, refuse_not_finite

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
_KEY_VALUE = ("attn2.to_k.weight", "attn2.to_v.weight")
_LORA, _WEIGHTS = "pytorch_lora_weights.safetensors", "unet.safetensors"
_FINGERPRINT = "base_fingerprint"  # in adapter.json
_ENCODER = "part_encoder.safetensors"
_MISFIT = "does not fit its adapter's base model and settings: train again, or choose another adapter"


class PartCraft:
    """A pipeline, its part prompts, and what learns: the part encoder, and LoRA or weights of the U-Net."""

    def __init__(self, pipeline: Base, part_encoder: PartEncoder, settings: dict):
        self.pipeline = pipeline
        self.device = pipeline.device  # fixed here: diffusers looks for it in every module, each time it is asked
        self.part_encoder = part_encoder.to(self.device)
        self.own_scheduler = pipeline.scheduler
        self.prompts = PartPrompts(pipeline, self.part_encoder)
        self.settings = settings

    @classmethod
    def create(
        cls,
        base: str,
        device: str,
        precision: str = "auto",
        *,
        size: int | None = None,
        config: str | None = None,
        variants: list[int],
        unet: str,
        rank: int,
        lora_layers: str,
        bottleneck_layers: int,
        centroids: Sequence[torch.Tensor] | None = None,
        seed: int,
    ) -> "PartCraft":
        """A fresh model, which draws as the base does, with part tokens at the scale of words.

        base, device, size, config: as in `load_base`;
        variants: the number of variants of each part, background first; unet: what learns of the U-Net, `frozen` for
        nothing, `lora`, `key_value` of cross-attention, or the `full` U-Net; rank, lora_layers: of LoRA; centroids: of
        each part's variants, where tokens are to start from them.
        """
        pipeline = load_base(base, device, size, config)
        words = _word_embeddings(pipeline)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            encoder = PartEncoder(
                len(variants) - 1,
                max(variants),
                [of_one.shape[1] for of_one in words],
                layers=bottleneck_layers,
                scales=[float(of_one.std()) for of_one in words],
                centroids=centroids,
            )
            if unet == "lora":
                kinds = ("attn2",) if lora_layers == "cross" else ("attn1", "attn2")
                targets = [f"{kind}.{projection}" for kind in kinds for projection in _PROJECTIONS]
                pipeline.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        for weight in _trained_weights(pipeline.unet, unet).values():
            weight.requires_grad_()
        compute_in(pipeline, compute_type(precision, pipeline.device.type))
        settings = {
            "base": base,
            "base_config": config,
            _FINGERPRINT: base_fingerprint(base, config),
            "size": picture_size(pipeline),
            "variants": variants,
            "bottleneck_layers": bottleneck_layers,
            "unet": unet,
        }
        return cls(pipeline, encoder, settings)

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, told: Conditioning) -> torch.Tensor:
        """The U-Net's prediction of noisy latents (n, c, h, w)."""
        return self.pipeline.unet(noisy, timesteps, **told.arguments(), return_dict=False)[0]

    def networks(self) -> list[nn.Module]:
        """All that a training step computes with."""
        return [self.pipeline.unet, *self.prompts.text_encoders, self.part_encoder]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that learns, by name."""
        encoder = {f"part_encoder.{name}": p for name, p in self.part_encoder.named_parameters()}
        unet = {f"unet.{name}": p for name, p in self.pipeline.unet.named_parameters() if p.requires_grad}
        return encoder | unet

    def save_adapter(self, folder: Path, training: dict) -> None:
        """Write the adapter: LoRA in diffusers' format, or the U-Net's trained weights under diffusers' names; encoder
        and tokens in safetensors, settings, a model card.

        training: what the settings should tell about how it was made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        unet = self.pipeline.unet
        if self.settings["unet"] == "lora":
            config = unet.peft_config["default"].to_dict()
            config["target_modules"] = sorted(config["target_modules"])  # a set, in random order
            self.pipeline.save_lora_weights(
                folder,
                unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
                unet_lora_adapter_metadata=config,
            )
            _sort_header(folder / _LORA)
        elif self.settings["unet"] != "frozen":
            trained = {name: p.detach().cpu().contiguous() for name, p in unet.named_parameters() if p.requires_grad}
            save_file(trained, folder / _WEIGHTS)
        state = {name: weight.detach().cpu().contiguous() for name, weight in self.part_encoder.state_dict().items()}
        save_file(state, folder / _ENCODER)
        with torch.no_grad():
            embeddings = torch.cat(self.part_encoder.all_embeddings(), dim=-1).cpu()
        largest = self.part_encoder.variant_count
        tokens = {
            str(PartToken(m, k)): embeddings[m * largest + k].clone()
            for m, count in enumerate(self.settings["variants"])
            for k in range(count)
        }
        save_file(tokens, folder / "part_tokens.safetensors")
        settings = {**self.settings, "training": training}
        (folder / "adapter.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        (folder / "README.md").write_text(model_card(settings), encoding="utf-8")

    @classmethod
    def load(
        cls, folder: Path, device: str, precision: str = "auto", base: str | None = None, config: str | None = None
    ) -> "PartCraft":
        """Base model and adapter, ready to sample.

        base, config: where the base model lies now; no base: where both did when the adapter was trained.
        Raises UserError if the adapter is not whole, or if the base model is not the one that it was trained with.
        """
        try:
            settings = json.loads((folder / "adapter.json").read_text())
            needed = ("variants", "bottleneck_layers", "size", _FINGERPRINT)
            variants, layers, size, _ = (settings[name] for name in needed)
            if base is None:
                base, config = settings["base"], settings.get("base_config")
            state = load_file(folder / _ENCODER)
            file = _LORA if settings["unet"] == "lora" else _WEIGHTS
            learnt = {} if settings["unet"] == "frozen" else load_file(folder / file)
        except Exception as error:
            raise UserError(
                f"{folder} does not hold a whole adapter ({error}): train again, or choose another."
            ) from error
        refuse_other_base(base, config, settings, folder)
        pipeline = load_base(base, device, size, config)
        unet, widths = pipeline.unet, [of_one.shape[1] for of_one in _word_embeddings(pipeline)]
        encoder = PartEncoder(len(variants) - 1, max(variants), widths, layers=layers, scales=[1.0] * len(widths))
        _refuse_others(state, encoder.state_dict(), folder / _ENCODER)
        encoder.load_state_dict(state)
        encoder.eval().requires_grad_(False)
        if settings["unet"] == "lora":
            _refuse_others(learnt, _load_lora(pipeline, folder), folder / _LORA)
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
        else:
            _refuse_others(learnt, _trained_weights(unet, settings["unet"]), folder / _WEIGHTS)
            unet.load_state_dict(learnt, strict=False)
        compute_in(pipeline, compute_type(precision, pipeline.device.type))
        return cls(pipeline, encoder, settings | {"base": base, "base_config": config})


def refuse_other_base(base: str, config: str | None, settings: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError unless a base model has the weights that an adapter was trained with.

    base, config: as in `load_base`; settings: of its `adapter.json`; folder: where it lies, for the sentence.
    """
    if base_fingerprint(base, config) != settings[_FINGERPRINT]:
        given, then = (
            f"{model!r}" + (f" with base.config={of_file!r}" if of_file else "")
            for model, of_file in ((base, config), (settings["base"], settings.get("base_config")))
        )
        raise UserError(
            f"base.model={given} is not what the adapter {folder} was trained with, which was {then} then: give that "
            "model, wherever it lies now."
        )


def _trained_weights(unet: nn.Module, kind: str) -> dict[str, nn.Parameter]:
    """The U-Net's own weights that learn: all of a `full` one, those of `key_value`, else none."""
    weights = dict(unet.named_parameters()) if kind in ("full", "key_value") else {}
    return {name: weight for name, weight in weights.items() if kind == "full" or name.endswith(_KEY_VALUE)}


def _word_embeddings(pipeline: Base) -> list[torch.Tensor]:
    """Those of each text encoder, (words, width)."""
    return [text_encoder.get_input_embeddings().weight for text_encoder in text_encoders(pipeline)]


def _load_lora(pipeline: Base, folder: Path) -> dict[str, torch.Tensor]:
    """Add an adapter's LoRA to the U-Net; returns the weights that it has a place for, under diffusers' names."""
    try:
        pipeline.load_lora_weights(folder, weight_name=_LORA, adapter_name="partcraft")
    except Exception as error:  # diffusers' of names that it does not know, and PEFT's of shapes
        raise UserError(f"{folder / _LORA} {_MISFIT} ({first_line(error)}).") from error
    if not pipeline.get_list_adapters():  # of names that are none of a U-Net's diffusers only warns
        return {}
    added = get_peft_model_state_dict(pipeline.unet, adapter_name="partcraft")
    return {f"unet.{name}": weight for name, weight in convert_state_dict_to_diffusers(added).items()}


def _refuse_others(learnt: Mapping[str, torch.Tensor], places: Mapping[str, torch.Tensor], file: Path) -> None:
    """Raise UserError unless weights have the names and shapes of those whose place they take, and are finite."""
    wrong = learnt.keys() ^ places.keys()
    wrong = wrong or {name for name, weight in learnt.items() if weight.shape != places[name].shape}
    if wrong:
        raise UserError(f"{file} {_MISFIT} (missing, left over or of another shape: {min(wrong)}).")
    refuse_not_finite(learnt, str(file))


def _sort_header(path: Path) -> None:
    """Sort a safetensors file's metadata, which is written in random order: equal adapters, equal bytes."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - 8)
    path.write_bytes(content[:8] + ordered + content[end:])


def model_card(settings: dict) -> str:
    """An adapter's README.md, but for what its parts are."""
    training = "\n".join(f"| {name} | {value} |" for name, value in sorted(settings["training"].items()))
    counts = ", ".join(map(str, settings["variants"]))
    unet = {
        "frozen": "",
        "lora": f"| `{_LORA}` | LoRA, for `pipeline.load_lora_weights` |\n",
        "key_value": f"| `{_WEIGHTS}` | the U-Net's key and value weights, for `unet.load_state_dict` |\n",
        "full": f"| `{_WEIGHTS}` | the U-Net's weights, for `unet.load_state_dict` |\n",
    }[settings["unet"]]
    return f"""---
base_model: {settings["base"]}
library_name: diffusers
tags: [partcraft, text-to-image]
---
# PartCraft adapter

Part tokens for the base model `{settings["base"]}`. Part 0 is the background; the parts have
{counts} variants. A prompt mixes words and tokens: `a photo of a [0,1] [2,3]`.

| file | content |
|---|---|
{unet}| `part_tokens.safetensors` | one word embedding for each token `[m,k]`, of SDXL its two behind each other |
| `part_encoder.safetensors` | the encoder that made them, to go on training |
| `adapter.json` | what is needed to use them |

## How it was trained
| option | value |
|---|---|
{training}
"""
