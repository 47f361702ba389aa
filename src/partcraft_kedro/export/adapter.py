"""Reading an adapter, and what its base model's settings tell, without loading the base model's weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DiffusionPipeline, DPMSolverMultistepScheduler, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor
from transformers import CLIPTextConfig

from partcraft_kedro.errors import UserError
from partcraft_kedro.prompts import PartToken, find_tokens
from partcraft_kedro.weights import XL, explain_failure, is_hub_id, refuse_not_finite, resolve_base

LORA, WEIGHTS, TOKENS = "pytorch_lora_weights.safetensors", "unet.safetensors", "part_tokens.safetensors"


@dataclass(frozen=True)
class Adapter:
    """What lies in an adapter's folder.

    settings: `adapter.json`; tokens: a word embedding (width,) float32 for each, of SDXL those of its two text encoders
    behind each other; lora: the U-Net's, under diffusers' names, empty if none was trained; rank, alpha: LoRA is scaled
    by alpha / rank, both 0 if there is none.
    """

    folder: Path
    settings: dict[str, Any]
    tokens: dict[PartToken, Tensor]
    lora: dict[str, Tensor]
    rank: int
    alpha: float

    @property
    def learnt(self) -> str:
        """What learnt of the U-Net: `frozen` for nothing, `lora`, `key_value` or `full`."""
        return self.settings["unet"]


def read_adapter(folder: Path) -> Adapter:
    """Raises UserError if the folder does not hold a whole adapter."""
    try:
        settings = json.loads((folder / "adapter.json").read_text())
        tokens = {find_tokens(name)[0]: vector for name, vector in _read(folder / TOKENS)[0].items()}
        lora: dict[str, Tensor] = {}
        rank, alpha = 0, 0.0
        if settings["unet"] == "lora":
            lora, header = _read(folder / LORA)
            peft = json.loads(header["lora_adapter_metadata"])
            rank, alpha = peft["unet.r"], float(peft["unet.lora_alpha"])
    except Exception as error:  # every format has errors of its own
        raise UserError(f"{folder} does not hold a whole adapter ({error}): train again, or choose another.") from error
    refuse_not_finite(lora | {str(token): vector for token, vector in tokens.items()}, str(folder))
    return Adapter(folder, settings, tokens, lora, rank, alpha)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its header's metadata."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


@dataclass(frozen=True)
class Base:
    """What the settings of a base model tell.

    name, config: as `base.model` and `base.config`; side: of its pictures, in pixels; prediction: `epsilon`,
    `v_prediction` or `sample`; unet: the settings of its U-Net; widths: of each text encoder's token embeddings.
    """

    name: str
    config: str | None
    side: int
    prediction: str
    unet: Mapping[str, Any]
    widths: Sequence[int]

    @property
    def family(self) -> str:
        """`1`, `2` or `XL`, as their text encoders tell."""
        return "XL" if len(self.widths) == 2 else "2" if self.widths[0] == 1024 else "1"

    @property
    def on_hub(self) -> bool:
        """Whether the name is a hub id, which means the same on every machine."""
        return is_hub_id(self.name)


def read_base(name: str, config: str | None = None) -> Base:
    """name, config: as `base.model` and `base.config`. Raises UserError if its settings cannot be read."""
    folder = resolve_base(name, config)
    try:
        encoders = ["text_encoder"]
        if DiffusionPipeline.load_config(folder)["_class_name"] == XL:
            encoders.append("text_encoder_2")
        widths = [CLIPTextConfig.from_pretrained(folder, subfolder=encoder).hidden_size for encoder in encoders]
        unet = UNet2DConditionModel.load_config(folder, subfolder="unet")
        levels = len(AutoencoderKL.load_config(folder, subfolder="vae")["block_out_channels"])
        scheduler = DPMSolverMultistepScheduler.load_config(folder, subfolder="scheduler")  # any class reads any's
    except Exception as error:  # what a folder that is no such model raises depends on what it is instead
        of_file = Path(name).is_file()
        name, option = (folder, "base.config") if of_file else (name, "base.model")
        raise explain_failure(name, option, "a Stable Diffusion model", error) from error
    side = unet["sample_size"] * 2 ** (levels - 1)
    return Base(name, config, side, scheduler.get("prediction_type", "epsilon"), unet, widths)
