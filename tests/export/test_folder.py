"""What an export's folder holds, and when there is none."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from partcraft_kedro.errors import UserError
from partcraft_kedro.export.adapter import read_adapter, read_base
from partcraft_kedro.export.folder import write_export
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.weights import TINY, adapter_fingerprint

WORDS = {"background-001", "head-002", "head-003", "wing-000"}


def write(folder: Path, adapter, base, words, form="all", hub=None) -> set[str]:
    write_export(folder, adapter, base, "partcraft-cub", words, form, SamplingOptions(), hub)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def embeddings() -> set[str]:
    beginning = "embeddings/partcraft-cub/partcraft-cub-"
    pictures = {f"{beginning}{word}.preview.png" for word in WORDS - {"wing-000"}}
    return pictures | {f"{beginning}{word}.safetensors" for word in WORDS}


ALWAYS = {"README.md", "contact_sheet.jpg", "contact_sheet.html", "export.json"} | embeddings()
ADAPTER = {
    f"adapter/{name}" for name in ("README.md", "adapter.json", "part_encoder.safetensors", "part_tokens.safetensors")
} | {
    f"adapter/parts/{name}"
    for name in ("0.webp", "1.webp", "2.webp", "parts.json", "part_predictor.json", "centroids.safetensors")
}
ALWAYS |= ADAPTER
LORA = {"adapter/pytorch_lora_weights.safetensors"}
DIFFUSERS = {"pytorch_lora_weights.safetensors"}
WEBUI = {f"lora/partcraft-cub{end}" for end in (".safetensors", ".json", "-bundle.safetensors", "-bundle.json")}


@pytest.mark.parametrize(
    ("form", "files", "named"),
    [
        ("all", DIFFUSERS | WEBUI, {"diffusers", "AUTOMATIC1111", "Forge", "ComfyUI"}),
        ("diffusers", DIFFUSERS, {"diffusers"}),
        ("webui", WEBUI, {"AUTOMATIC1111", "Forge", "ComfyUI"}),
    ],
)
def test_a_folder_holds_what_its_format_needs(exported, adapter, base, words, form, files, named) -> None:
    assert write(exported, adapter, base, words, form) == ALWAYS | LORA | files
    card = (exported / "README.md").read_text()
    headings = set(re.findall(r"^## (\w+)$", card, re.MULTILINE))
    assert headings - {"Settings"} == named
    page = (exported / "contact_sheet.html").read_text()
    assert set(re.findall(r"<dt>(\w+)</dt>", page)) == named
    assert page.count('class="word"') == 4 and page.count("data:image/jpeg") == 3
    assert Image.open(exported / "contact_sheet.jpg").width >= 900


def test_without_lora_there_are_words_alone(exported, make_adapter, base, words) -> None:
    assert write(exported, make_adapter("frozen"), base, words) == ALWAYS
    card = (exported / "README.md").read_text()
    assert "load_lora_weights" not in card and "<lora:" not in card and "Load LoRA" not in card


def test_a_whole_unet_is_a_folder_of_diffusers(exported, make_adapter, base, words) -> None:
    full = make_adapter("full")
    unet = {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
    assert write(exported, full, base, words) == ALWAYS | {"adapter/unet.safetensors"} | unet
    assert (
        load_file(exported / "unet/diffusion_pytorch_model.safetensors").keys()
        == load_file(full.folder / "unet.safetensors").keys()
    )
    card = (exported / "README.md").read_text()
    assert "AUTOMATIC1111" not in card and 'subfolder="unet"' in card
    with pytest.raises(UserError, match=r"is a whole U-Net .* give --format=diffusers"):
        write(exported, full, base, words, "webui")


@pytest.mark.parametrize(
    ("scheduler", "algorithm", "sampler"),
    [
        ("dpm-solver++", ['algorithm_type="dpmsolver++"'], [", sampler DPM++ 2M."]),
        ("sde-dpm-solver++", ['algorithm_type="sde-dpmsolver++"'], [", sampler DPM++ 2M SDE."]),
        ("model", [], []),
    ],
)
def test_a_card_says_how_pictures_are_sampled(exported, adapter, base, words, scheduler, algorithm, sampler) -> None:
    write_export(exported, adapter, base, "partcraft-cub", words, "all", SamplingOptions(scheduler=scheduler))
    card = (exported / "README.md").read_text()
    assert re.findall(r'algorithm_type="[^"]+"', card) == algorithm
    assert re.findall(r", sampler [^.]+\.", card) == sampler


@pytest.mark.parametrize("unet", ["lora", "full"])
def test_a_card_of_sdxl_has_its_pipeline_and_both_text_encoders(exported, make_adapter, small_xl, base_xl, words, unet):
    write(exported, make_adapter(unet, base=str(small_xl)), base_xl, words, "diffusers")
    card = (exported / "README.md").read_text()
    lines = re.search(r"```python\n(.+?)\n```", card, re.DOTALL)[1]
    compile(lines, "card", "exec")
    assert 'pipeline = StableDiffusionXLPipeline.from_pretrained("path/to/base", ' in lines
    assert ("unet=unet" in lines) == (unet == "full")
    assert "height=32, width=32" in lines


def test_an_export_holds_the_adapter_and_not_where_its_models_lay(
    exported, make_adapter, small_xl, base_xl, words
) -> None:
    trained = make_adapter(base=str(small_xl), features=str(small_xl.parent / "vit"))
    write(exported, trained, base_xl, words)
    again, settings = read_adapter(exported / "adapter"), {**trained.settings, "base": "base"}
    assert again.settings == settings and again.tokens.keys() == trained.tokens.keys()
    assert adapter_fingerprint(exported / "adapter") == adapter_fingerprint(trained.folder)
    everything = [path.read_text(errors="ignore") for path in exported.rglob("*") if path.is_file()]
    assert not any(str(small_xl.parent) in text for text in everything)
    card = (exported / "adapter/README.md").read_text()
    assert "\nbase_model: base\n" in card and "| 1 | head | `<head:0>` to `<head:3>` |" in card
    assert PartPredictor.load(exported / "adapter/parts", model="here").features == {"model": "here"}


def test_of_a_base_in_this_folder_nothing_but_its_name_is_written(
    exported, make_adapter, small_xl, base_xl, words, monkeypatch
) -> None:
    """`base.model=.`: a full stop stands in numbers, too."""
    monkeypatch.chdir(small_xl)
    trained = make_adapter(base=".")
    write(exported, trained, base_xl, words)
    assert json.loads((exported / "adapter/adapter.json").read_text()) == trained.settings | {"base": "base"}


def test_key_and_value_weights_are_refused_with_the_reason(exported, make_adapter, base, words) -> None:
    with pytest.raises(UserError, match=r"\(train\.unet=key_value\), which neither diffusers' loaders nor"):
        write(exported, make_adapter("key_value"), base, words)
    assert not exported.exists()


def test_an_earlier_export_is_replaced_and_nothing_else_is(exported, adapter, base, words) -> None:
    exported.mkdir()
    write(exported, adapter, base, words)
    assert write(exported, adapter, base, words[:1], "diffusers") == {
        *("README.md", "contact_sheet.jpg", "contact_sheet.html", "export.json", "pytorch_lora_weights.safetensors"),
        *(ADAPTER | LORA),
        *(f"embeddings/partcraft-cub/partcraft-cub-background-001.{end}" for end in ("safetensors", "preview.png")),
    }
    (exported / "export.json").unlink()
    with pytest.raises(UserError, match="is not empty, and is no earlier export"):
        write(exported, adapter, base, words)
    file = exported / "README.md"
    with pytest.raises(UserError, match=r"README\.md is a file"):
        write(file, adapter, base, words)
    assert file.read_text().startswith("---")


def test_a_folder_that_cannot_be_made_is_one_sentence(exported, adapter, base, words) -> None:
    exported.write_text("")
    with pytest.raises(UserError, match=r"--to=.*export/below cannot be written \(.*Not a directory"):
        write(exported / "below", adapter, base, words)


def test_on_a_full_disk_the_earlier_export_stays(exported, adapter, base, words) -> None:
    """A limit to the size of files stands for the disk, in a process of its own."""
    before = write(exported, adapter, base, words[:1])
    script = f"""
import resource
from pathlib import Path
from partcraft_kedro.errors import FullDisk
from partcraft_kedro.export.adapter import read_adapter, read_base
from partcraft_kedro.export.folder import write_export
from partcraft_kedro.export.words import Word
from partcraft_kedro.options import SamplingOptions
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
adapter, base = read_adapter(Path({str(adapter.folder)!r})), read_base("tiny")
token = min(adapter.tokens)
words = [Word(token, "partcraft-cub-background-000", "background", 1, None)]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_export(Path({str(exported)!r}), adapter, base, "partcraft-cub", words, "all", SamplingOptions())
except FullDisk as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == (
        f"The disk is full, {exported} cannot be written: make space and run the same command again; finished work is "
        "kept.\n"
    ), done.stderr
    assert {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()} == before
    assert [path.name for path in exported.parent.glob(".*")] == []


def test_the_record_tells_programs_which_word_is_which_token(exported, adapter, base, words) -> None:
    write(exported, adapter, base, words)
    record = json.loads((exported / "export.json").read_text())
    assert record["title"] == "partcraft-cub"
    assert record["words"][1] == {
        **{"word": "partcraft-cub-head-002", "token": "[1,2]", "part": "head", "pictures": 3},
    }


@pytest.mark.parametrize(
    ("name", "address", "listed"),
    [
        ("tiny", "partcraft_kedro/tiny/base", False),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5", True),
        ("/home/me/secret/sd15", "path/to/sd15", False),
    ],
)
def test_a_card_names_the_base_and_no_folder_of_this_machine(exported, adapter, base, words, name, address, listed):
    write(exported, adapter, replace(base, name=name), words, hub="me/birds")
    card = (exported / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front.get("base_model") == (name if listed else None)
    assert f'from_pretrained("{address}", torch_dtype' in card
    assert 'folder = Path(snapshot_download("me/birds"))' in card
    assert not any("secret" in path.read_text(errors="ignore") for path in exported.rglob("*") if path.is_file())


def test_a_card_of_a_base_in_one_file_loads_the_file(exported, adapter, base, words, tmp_path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"")
    of_file = replace(base, name=str(tmp_path / "secret.safetensors"), config="owner/settings")
    write(exported, adapter, of_file, words)
    loading = (
        'StableDiffusionPipeline.from_single_file("path/to/secret.safetensors", config="owner/settings", torch_dtype'
    )
    card = (exported / "README.md").read_text()
    assert loading in card and str(tmp_path) not in card


def test_names_of_parts_are_text_on_the_page(exported, adapter, base, words) -> None:
    write(exported, adapter, base, [replace(words[0], part="<script>alert(1)</script>")])
    assert "<script>alert" not in (exported / "contact_sheet.html").read_text()


@pytest.mark.parametrize("missing", ["adapter.json", "part_tokens.safetensors", "pytorch_lora_weights.safetensors"])
def test_what_is_no_whole_adapter_is_refused(make_adapter, missing) -> None:
    folder = make_adapter().folder
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"{folder} does not hold a whole adapter"):
        read_adapter(folder)


def test_tokens_that_are_no_numbers_are_refused(make_adapter) -> None:
    folder = make_adapter().folder
    tokens = load_file(folder / "part_tokens.safetensors")
    save_file(tokens | {"[1,0]": torch.full_like(tokens["[1,0]"], torch.nan)}, folder / "part_tokens.safetensors")
    with pytest.raises(UserError, match=r"is damaged, since its weights \[1,0\]"):
        read_adapter(folder)


def test_a_base_is_told_by_its_settings(small_xl: Path) -> None:
    base = read_base("tiny")
    assert (base.side, base.prediction, base.on_hub, base.family) == (128, "v_prediction", False, "1")
    assert base.unet["sample_size"] == 64
    assert read_base(str(TINY / "base")).side == 128
    with pytest.raises(UserError, match=r"base\.model='nowhere' is neither"):
        read_base("nowhere")
    assert (read_base(str(small_xl)).side, read_base(str(small_xl)).family) == (32, "XL")
