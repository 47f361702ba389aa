"""Finding models: shipped with the package, in a local folder, or on a hub."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import digest_of, fingerprint_of, read_file

if TYPE_CHECKING:
    import torch
    from transformers import BaseImageProcessor, PreTrainedModel

TINY = Path(__file__).parent / "tiny"
_SETTINGS = ("*.json", "*.txt", "*.model")
_INDEX = "model_index.json"  # in a folder that holds a pipeline of networks
XL = "StableDiffusionXLPipeline"
_FAMILIES = {"StableDiffusionPipeline": "Stable Diffusion 1 or 2", XL: "Stable Diffusion XL"}
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# Of a checkpoint in one file, under the names of the original Stable Diffusion: U-Net, VAE, and of each family a weight
# of each text encoder.
UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_POSITIONS = "transformer.text_model.embeddings.position_embedding.weight"
_TEXT_ENCODERS = {
    "1": {f"cond_stage_model.{_POSITIONS}"},
    "2": {"cond_stage_model.model.token_embedding.weight"},
    "XL": {f"conditioner.embedders.0.{_POSITIONS}", "conditioner.embedders.1.model.positional_embedding"},
}
# Where settings and tokenizers of a family are. Of 2 there are two kinds, which predict noise and v.
_CONFIGS = {"1": "stable-diffusion-v1-5/stable-diffusion-v1-5", "XL": "stabilityai/stable-diffusion-xl-base-1.0"}
# That are loaded of it.
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def is_hub_name(text: str) -> bool:
    """Whether a text has the form of a hub id, `owner/name`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text, re.ASCII) is not None


def is_hub_id(name: str) -> bool:
    """Whether a model's or an adapter's name is a hub id: of its form, and that of no file or folder here."""
    return is_hub_name(name) and not Path(name).exists()


def resolve_model(name: str, component: str, option: str) -> str:
    """The folder or hub id that `from_pretrained` should load.

    name: `tiny` (the embedded model's `component`), a folder that exists, or a hub id `owner/model`.
    Raises UserError, naming the option, if it is none of these.
    """
    if name == "tiny":
        return str(TINY / component)
    if Path(name).is_dir():
        return name
    if Path(name).is_file():
        raise UserError(f"{option}={name!r} is a file: give the folder of a model.")
    if is_hub_id(name):
        return name
    raise UserError(
        f"{option}={name!r} is neither 'tiny', nor a folder that exists, nor a hub id such as 'owner/model': "
        "download the model into a folder and give that folder's path."
    )


def resolve_base(name: str, config: str | None = None) -> str:
    """The folder or hub id that has a base model's settings and tokenizers, and its weights if it is no file.

    name, config: as `base.model` and `base.config`. Raises UserError if a file is no checkpoint of Stable Diffusion, or
    if a folder holds no pipeline of its kind.
    """
    place, option = name, "base.model"
    if Path(name).is_file():
        place, option = config or _CONFIGS.get(family_of(Path(name)), ""), "base.config"
        if not place:
            raise UserError(
                f"base.model={name!r} is a Stable Diffusion 2, and its file does not tell whether it predicts noise or "
                "v: give base.config, the folder or hub id of a model of its kind."
            )
    elif config is not None:
        raise UserError(f"base.config={config!r} is for a model that is one file, and base.model={name!r} is none.")
    folder = resolve_model(place, "base", option)
    if Path(folder).is_dir():
        try:
            kind = json.loads((Path(folder) / _INDEX).read_text())["_class_name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"its {_INDEX} cannot be read ({error})"
            raise explain_failure(place, option, "a Stable Diffusion model", ValueError(reason)) from error
        refuse_other_pipelines(name, place, kind)
    return folder


def family_of(checkpoint: Path) -> str:
    """`1`, `2` or `XL`, of a whole checkpoint in one file; its header alone is read.

    Raises UserError if it is a pickle, damaged, or no whole checkpoint of Stable Diffusion.
    """
    from safetensors import safe_open

    told = f"base.model={str(checkpoint)!r}"
    if checkpoint.suffix in _PICKLES:
        raise UserError(f"{told} is a pickle, which runs whatever code is in it when it is read: give a .safetensors.")
    try:
        with safe_open(checkpoint, "numpy") as file:
            names = set(file.keys())
    except Exception as error:  # of a library without a class of its own
        raise UserError(f"{told} is no whole .safetensors file ({error}): fetch it again.") from error
    whole = "give a checkpoint with U-Net, VAE and text encoder, or a folder in diffusers' layout"
    if not any(name.startswith(UNET) for name in names):
        beginnings = {name.partition(".")[0] for name in names}
        kind = "has no U-Net under the names of a checkpoint"
        if any("lora" in name for name in names):
            kind = "is a LoRA, which changes a model and is none"
        elif "first_stage_model" in beginnings or {"encoder", "decoder"} <= beginnings:
            kind = "is a VAE alone"
        raise UserError(f"{told} {kind}: {whole}.")
    if not any(name.startswith(_VAE) for name in names):
        raise UserError(f"{told} has no VAE: {whole}.")
    for family, marks in _TEXT_ENCODERS.items():
        if marks <= names:
            return family
    raise UserError(f"{told} has no text encoder of Stable Diffusion 1, 2 or XL: {whole}.")


def refuse_other_pipelines(name: str, place: str, kind: str) -> None:
    """Raise UserError unless a pipeline is one of Stable Diffusion's, and of a checkpoint in one file the checkpoint's.

    name: as `base.model`; place: what its settings were read from; kind: their `_class_name`, of `model_index.json`.
    """
    option, kinds = "base.model", list(_FAMILIES)
    if Path(name).is_file():
        option, kinds = "base.config", [XL] if family_of(Path(name)) == "XL" else kinds[:1]
    if kind not in kinds:
        families = ", or of ".join(_FAMILIES[wanted] for wanted in kinds)
        raise UserError(f"{option}={place!r} is a {kind}, which cannot be used here: give a model of {families}.")


def explain_failure(name: str, option: str, kind: str, error: Exception) -> UserError:
    """One sentence on a model that `from_pretrained` could not load, and what to do about it.

    kind: what it should have been, such as `a DINOv2 model`.
    """
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if Path(name).exists() or name == "tiny":
        return UserError(f"{option}={name!r} cannot be loaded as {kind}: {reason}")
    return UserError(
        f"{option}={name!r} is not on this machine and cannot be fetched: download https://huggingface.co/{name} into "
        f"a folder and give that folder, --params {option}=<folder> ({reason.rstrip('.')})."
    )


def load_whole(architecture: type[Any], folder: str, told: str, subfolder: str = "") -> "torch.nn.Module":
    """`architecture.from_pretrained(folder)`, in float32 and from safetensors alone, with all its weights.

    folder: or a hub id; told: what a user is told that it is, such as `base.model='sd15'`.
    Raises UserError if weights are missing, left over, of another shape or not finite: all these load without an error.
    """
    import torch

    network, loading = architecture.from_pretrained(
        folder,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        subfolder=subfolder,
        variant=_variant_of(Path(folder, subfolder)),
    )
    kind = type(network).__name__
    for found, wrong in {
        "missing_keys": f"lacks weights of its {kind}",
        "mismatched_keys": f"has weights of another shape than the config.json of its {kind} says",
        "unexpected_keys": f"has weights that its {kind} has no place for",
    }.items():
        if names := sorted(name if isinstance(name, str) else name[0] for name in loading[found]):
            raise UserError(f"{told} {wrong}, such as {names[0]}: give a whole model, and of this kind.")
    refuse_not_finite(network.state_dict(), told)
    return network


def refuse_not_finite(weights: "Mapping[str, torch.Tensor]", told: str) -> None:
    """Raise UserError if a weight is infinite or not a number. told: whose weights they are, for the sentence."""
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise UserError(f"{told} is damaged, since its weights {name} are not all finite numbers: give another.")


def load_image_encoder(
    name: str, option: str, kind: str, model_types: Collection[str] | None = None
) -> "tuple[PreTrainedModel, BaseImageProcessor]":
    """A vision model of transformers and its image processor. name: as `resolve_model` takes it.

    kind: what it should be, for a sentence; model_types: those of transformers that are; None: whatever AutoModel
    loads. Raises UserError if it cannot be loaded whole, or is of another type.
    """
    import transformers
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    folder = resolve_model(name, "feature_extractor", option)
    transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
        if model_types and config.model_type not in model_types:
            holds = ", ".join(config.architectures or [config.model_type])
            raise UserError(f"{option}={name!r} holds a {holds}, which is not {kind}: give the folder of one.")
        return load_whole(AutoModel, folder, f"{option}={name!r}"), AutoImageProcessor.from_pretrained(folder)
    except UserError:
        raise
    except Exception as error:  # what a folder that is no such model raises depends on what it is instead
        raise explain_failure(name, option, kind, error) from error


def model_fingerprint(name: str, component: str, option: str, memo: Path | None = None) -> str:
    """What a stage's key says of a model: the digest of its files where they are local, else its hub id.

    memo: as in `digest_of`.
    """
    if component == "base" and Path(name).is_file():
        return digest_of(Path(name), memo)
    return _fingerprint(name, component, option, memo, "*.safetensors", *_SETTINGS)


def config_fingerprint(name: str, memo: Path | None = None) -> str:
    """What a stage's key says of `base.config`: of its settings and tokenizers, as `model_fingerprint` of a model."""
    return _fingerprint(name, "base", "base.config", memo, *_SETTINGS)


def base_fingerprint(name: str, config: str | None) -> str:
    """What an adapter says of its base model, settings and tokenizers included. name, config: as in `resolve_base`."""
    own = model_fingerprint(name, "base", "base.model")
    return fingerprint_of([own, config_fingerprint(resolve_base(name, config))]) if Path(name).is_file() else own


def adapter_fingerprint(folder: Path, memo: Path | None = None) -> str:
    """Of what an adapter draws with: weights and settings, without where its base model lay then, and without names and
    crops of its parts. memo: as in `digest_of`. Raises UserError if its settings cannot be read."""
    settings = read_file(folder / "adapter.json", lambda path: json.loads(path.read_text()))
    kept = {name: value for name, value in settings.items() if name not in ("base", "base_config")}
    return fingerprint_of([kept, {path.name: digest_of(path, memo) for path in folder.glob("*.safetensors")}])


def _fingerprint(name: str, component: str, option: str, memo: Path | None, *patterns: str) -> str:
    """Of the files of a local model that are loaded and match a pattern: a clone of a hub's repository has its weights
    in all formats, and its history."""
    folder = Path(resolve_model(name, component, option))
    if not folder.is_dir():
        return name
    index = folder / _INDEX
    files, components = ([index], [folder / name for name in _COMPONENTS]) if index.exists() else ([], [folder])
    for place in components:
        variant = _variant_of(place)
        found = [path for pattern in patterns for path in place.glob(pattern)]
        files += [path for path in found if path.suffix != ".safetensors" or _variant_in(path) == variant]
    return fingerprint_of({path.relative_to(folder).as_posix(): digest_of(path, memo) for path in files})


def _variant_of(folder: Path) -> str | None:
    """The variant of a network's weights to ask `from_pretrained` for: `fp16` where there is nothing else."""
    variants = [_variant_in(path) for path in sorted(folder.glob("*.safetensors"))]
    return None if None in variants else next(iter(variants), None)


def _variant_in(path: Path) -> str | None:
    """`fp16` of model.fp16.safetensors, or of model.fp16-00001-of-00002.safetensors."""
    return path.stem.partition(".")[2].partition("-")[0] or None
