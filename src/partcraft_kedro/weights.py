"""Finding models: shipped with the package, in a local folder, or on a hub."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import digest_of, fingerprint_of

if TYPE_CHECKING:
    import torch
    from transformers import BaseImageProcessor, PreTrainedModel

TINY = Path(__file__).parent / "tiny"
_INDEX = "model_index.json"  # in a folder that holds a pipeline of networks
XL = "StableDiffusionXLPipeline"
# That are loaded of it.
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


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
        convert = f"StableDiffusionPipeline.from_single_file({name!r}).save_pretrained('<folder>')"
        how = f"convert it once, with a network, by diffusers' {convert}, and give" if component == "base" else "give"
        raise UserError(f"{option}={name!r} is a file, and a model is a folder: {how} that folder.")
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise UserError(
        f"{option}={name!r} is neither 'tiny', nor a folder that exists, nor a hub id such as 'owner/model': "
        "download the model into a folder and give that folder's path."
    )


def resolve_base(name: str) -> str:
    """`resolve_model` for `base.model`. Raises UserError if a folder holds no pipeline of Stable Diffusion's kind."""
    folder = resolve_model(name, "base", "base.model")
    if Path(folder).is_dir():
        try:
            kind = json.loads((Path(folder) / _INDEX).read_text())["_class_name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"its {_INDEX} cannot be read ({error})"
            raise explain_failure(name, "base.model", "a Stable Diffusion model", ValueError(reason)) from error
        refuse_other_pipelines(name, kind)
    return folder


def refuse_other_pipelines(name: str, kind: str) -> None:
    """Raise UserError unless a base model's `_class_name`, of its `model_index.json`, is one of Stable Diffusion's."""
    if kind not in ("StableDiffusionPipeline", XL):
        raise UserError(
            f"base.model={name!r} is a {kind}, which is not supported: give a model of Stable Diffusion 1, 2 or XL."
        )


def explain_failure(name: str, option: str, kind: str, error: Exception) -> UserError:
    """One sentence on a model that `from_pretrained` could not load, and what to do about it.

    kind: what it should have been, such as `a DINOv2 model`.
    """
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if Path(name).is_dir() or name == "tiny":
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
    folder = Path(resolve_model(name, component, option))
    if not folder.is_dir():
        return name
    return fingerprint_of({path.relative_to(folder).as_posix(): digest_of(path, memo) for path in _files_of(folder)})


def _files_of(folder: Path) -> list[Path]:
    """The files of a local model that are loaded: a clone of a hub's repository has its weights in all formats, and
    its history."""
    index = folder / _INDEX
    files, components = ([index], [folder / name for name in _COMPONENTS]) if index.exists() else ([], [folder])
    for component in components:
        variant = _variant_of(component)
        weights = [path for path in component.glob("*.safetensors") if _variant_in(path) == variant]
        files += weights + [path for path in component.glob("*") if path.suffix in (".json", ".txt", ".model")]
    return files


def _variant_of(folder: Path) -> str | None:
    """The variant of a network's weights to ask `from_pretrained` for: `fp16` where there is nothing else."""
    variants = [_variant_in(path) for path in sorted(folder.glob("*.safetensors"))]
    return None if None in variants else next(iter(variants), None)


def _variant_in(path: Path) -> str | None:
    """`fp16` of model.fp16.safetensors, or of model.fp16-00001-of-00002.safetensors."""
    return path.stem.partition(".")[2].partition("-")[0] or None
