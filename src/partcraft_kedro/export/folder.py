"""The exported folder, written whole or not at all."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from partcraft_kedro.errors import NotWritten, UserError
from partcraft_kedro.export import ADAPTER
from partcraft_kedro.export.adapter import LORA, WEIGHTS, Adapter, Base
from partcraft_kedro.export.card import render_card
from partcraft_kedro.export.contact_sheet import draw_sheet, render_page
from partcraft_kedro.export.kohya import bundled, embedding_header, entries_of, lora_header, save_with_hash, to_kohya
from partcraft_kedro.export.words import Program, Word, example_of, programs
from partcraft_kedro.files import write_folder, write_json
from partcraft_kedro.model.partcraft import model_card
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.parts.sheet import PARTS, read_sheet
from partcraft_kedro.weights import is_hub_id

_RECORD = "export.json"  # in a folder that an export made


def refuse_folder(folder: Path) -> None:
    """Raise UserError if a folder holds anything but an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--to={folder} is a file: give a new folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _RECORD).exists():
        raise UserError(f"--to={folder} is not empty, and is no earlier export: give a new folder, or an empty one.")


def programs_for(adapter: Adapter, title: str, form: str) -> list[Program]:
    """The programs that can use an adapter. form: one of FORMATS.

    Raises UserError for what no program of a form reads.
    """
    if adapter.learnt == "key_value":
        raise UserError(
            f"The adapter {adapter.folder} replaces key and value weights of its base model (train.unet=key_value), "
            "which neither diffusers' loaders nor other programs read alone: export one that was trained with "
            "train.unet=lora, frozen or full."
        )
    if adapter.learnt == "full" and form == "webui":
        raise UserError(
            f"The adapter {adapter.folder} is a whole U-Net (train.unet=full), which AUTOMATIC1111, Forge and ComfyUI "
            "read only inside a checkpoint with VAE and text encoder: give --format=diffusers."
        )
    webui = form != "diffusers" and adapter.learnt != "full"
    return programs(title, adapter.learnt == "lora", diffusers=form != "webui", webui=webui)


def write_export(
    folder: Path,
    adapter: Adapter,
    base: Base,
    title: str,
    words: Sequence[Word],
    form: str,
    sampling: SamplingOptions,
    hub: str | None = None,
) -> None:
    """Write an export, in the place of an earlier one if there is one.

    title: begins the files' names; form: one of FORMATS; sampling: what the card recommends; hub: the name that it will
    be uploaded under, if it will. Raises UserError as `refuse_folder` and `programs_for`, or if it cannot be written.
    """
    refuse_folder(folder)
    for_programs = programs_for(adapter, title, form)
    diffusers, webui = (any(program.name == name for program in for_programs) for name in ("diffusers", "ComfyUI"))

    def fill(partial: Path) -> None:
        embeddings = _write_embeddings(partial / "embeddings" / title, adapter, base, words)
        if webui and adapter.lora:
            _write_kohya(partial / "lora", adapter, base, title, words, embeddings)
        if diffusers and adapter.lora:
            shutil.copyfile(adapter.folder / LORA, partial / LORA)
        if adapter.learnt == "full":
            UNet2DConditionModel.from_config(base.unet).save_config(partial / "unet")
            shutil.copyfile(adapter.folder / WEIGHTS, partial / "unet" / "diffusion_pytorch_model.safetensors")
        _write_adapter(partial / ADAPTER, adapter)
        draw_sheet(title, words, for_programs).save(partial / "contact_sheet.jpg", quality=90, subsampling=0)
        (partial / "contact_sheet.html").write_text(render_page(title, words, for_programs), encoding="utf-8")
        card = render_card(adapter, base, title, words, for_programs, sampling, hub)
        (partial / "README.md").write_text(card, encoding="utf-8")
        write_json(partial / _RECORD, _record(title, adapter, words))

    try:
        write_folder(folder.resolve(), fill)
    except (OSError, NotWritten) as error:
        raise UserError(
            f"--to={folder} cannot be written ({error.__cause__ or error}): give another folder."
        ) from error


def _write_embeddings(
    folder: Path, adapter: Adapter, base: Base, words: Sequence[Word]
) -> dict[str, dict[str, Tensor]]:
    """One file a word, as AUTOMATIC1111, Forge and ComfyUI read it, and diffusers, with its crop beside as the picture
    that the first of these programs show; returns what the files hold, by word."""
    folder.mkdir(parents=True)
    embeddings = {word.word: entries_of(adapter.tokens[word.token], base) for word in words}
    for word in tqdm(words, desc="write words", unit="word"):
        header = embedding_header(base, word.word)
        save_with_hash(folder / f"{word.word}.safetensors", embeddings[word.word], header)
        if word.crop is not None:
            Image.fromarray(word.crop).save(folder / f"{word.word}.preview.png")
    return embeddings


def _write_kohya(
    folder: Path,
    adapter: Adapter,
    base: Base,
    title: str,
    words: Sequence[Word],
    embeddings: dict[str, dict[str, Tensor]],
) -> None:
    """LoRA alone, and with the words in it, each beside what AUTOMATIC1111 and Forge put into a prompt with it."""
    folder.mkdir()
    lora = to_kohya(adapter.lora, adapter.alpha, base)
    counts = {word.word: word.count for word in words}
    text = " ".join(word.word for word in example_of(words))
    for name, tensors in {title: lora, f"{title}-bundle": lora | bundled(embeddings)}.items():
        save_with_hash(folder / f"{name}.safetensors", tensors, lora_header(adapter, base, name, counts, text))
        write_json(folder / f"{name}.json", {"activation text": text, "preferred weight": 1})


def _write_adapter(folder: Path, adapter: Adapter) -> None:
    """The adapter itself, for this project: as it is, but for where its models lay."""
    shutil.copytree(adapter.folder, folder)
    settings = dict(adapter.settings)
    for key in ("base", "base_config"):
        if (model := settings.get(key)) and not _is_anywhere(model):
            settings[key] = Path(model).resolve().name
    write_json(folder / "adapter.json", settings)
    card = model_card(settings) + read_sheet(folder / PARTS).card()
    (folder / "README.md").write_text(card, encoding="utf-8")
    predictor = json.loads((folder / PARTS / "part_predictor.json").read_text())
    if not _is_anywhere(predictor["features"]["model"]):
        predictor["features"]["model"] = None  # features.model says where it is
    write_json(folder / PARTS / "part_predictor.json", predictor)


def _is_anywhere(model: str) -> bool:
    """Whether a model's name means the same on every machine."""
    return model == "tiny" or is_hub_id(model)


def _record(title: str, adapter: Adapter, words: Sequence[Word]) -> dict:
    """What an export holds, for programs."""
    exported = [
        {"word": word.word, "token": str(word.token), "part": word.part, "pictures": word.count} for word in words
    ]
    return {"title": title, "base_fingerprint": adapter.settings["base_fingerprint"], "words": exported}
