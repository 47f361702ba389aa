"""Files for AUTOMATIC1111, Forge and ComfyUI, against those programs' own rules of reading, written down here again."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from partcraft_kedro.export.adapter import read_base
from partcraft_kedro.export.choice import words_of
from partcraft_kedro.export.folder import write_export
from partcraft_kedro.export.kohya import to_kohya
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.prompts import PartToken

CONFIGS = Path(__file__).parents[3] / "shared/configs"
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="module")
def files(tmp_path_factory, adapter, base, words) -> Path:
    folder = tmp_path_factory.mktemp("files") / "export"
    write_export(folder, adapter, base, "partcraft-cub", words, "all", SamplingOptions())
    return folder


@pytest.fixture(scope="module")
def files_xl(tmp_path_factory, adapter_xl, base_xl, words) -> Path:
    folder = tmp_path_factory.mktemp("files") / "export"
    write_export(folder, adapter_xl, base_xl, "partcraft-cub", words, "webui", SamplingOptions())
    return folder


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def kohya_names(unet: UNet2DConditionModel, of_original: bool) -> set[str]:
    """sd-scripts, networks/lora.py, LoRANetwork: of each Transformer2DModel every linear layer and 1×1 convolution,
    by its path with the prefix `lora_unet` and underscores for dots.

    of_original: by its path in the original U-Net, on which SDXL is trained there.
    """
    paths = original_paths(unet) if of_original else {}
    names = set()
    for name, module in unet.named_modules():
        if type(module).__name__ == "Transformer2DModel":
            for child, layer in module.named_modules():
                if type(layer).__name__ in ("Linear", "LoRACompatibleLinear", "Conv2d"):
                    names.add(f"lora_unet.{paths.get(name, name)}.{child}".replace(".", "_"))
    return names


def original_paths(unet: UNet2DConditionModel) -> dict[str, str]:
    """sd-scripts, library/sdxl_original_unet.py, SdxlUNet2DConditionModel: where each transformer lies, by counting
    the blocks as they are appended there."""
    paths = {"mid_block.attentions.0": "middle_block.1"}
    appended = 1  # the first convolution
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            paths[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{appended}.1"
            appended += 1
        appended += bool(block.downsamplers)
    appended = 0
    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):  # an upsampling is the last part of such a block
            paths[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{appended}.1"
            appended += 1
    return paths


@pytest.mark.skipif(not CONFIGS.exists(), reason="no configurations of Stable Diffusion here")
@pytest.mark.parametrize(
    ("base", "kinds", "modules"),
    [
        ("sd15", ("attn2",), 64),
        ("sd15", ("attn1", "attn2"), 128),
        ("sdxl", ("attn1", "attn2"), 560),
    ],
)
def test_every_module_of_stable_diffusion_has_the_name_that_kohya_gives_it(base, kinds, modules) -> None:
    told = read_base(str(CONFIGS / base))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(told.unet)
        expected = {
            name
            for name in kohya_names(unet, of_original=base == "sdxl")
            if re.search(rf"_({'|'.join(kinds)})_({'|'.join(PROJECTIONS)})$".replace(".0", "_0"), name)
        }
        targets = [f"{kind}.{projection}" for kind in kinds for projection in PROJECTIONS]
        unet.add_adapter(LoraConfig(r=2, target_modules=targets))
    lora = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    names = to_kohya({f"unet.{name}": weight for name, weight in lora.items()}, 1.0, told)
    assert len(expected) == modules
    assert set(names) == {f"{n}.{end}" for n in expected for end in ("lora_down.weight", "lora_up.weight", "alpha")}


def test_alpha_is_as_trained(files) -> None:
    weights = load_file(files / "lora/partcraft-cub.safetensors")
    alphas = [weight for name, weight in weights.items() if name.endswith(".alpha")]
    assert len(alphas) == len(weights) / 3 and all(alpha.shape == () and alpha == 6 for alpha in alphas)
    assert all(weight.shape[0] == 2 for name, weight in weights.items() if name.endswith("lora_down.weight"))
    header = header_of(files / "lora/partcraft-cub.safetensors")
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("2", "6.0")


@pytest.mark.parametrize("name", ["partcraft-cub", "partcraft-cub-bundle"])
def test_a_header_says_what_kohya_s_does(files, words, name) -> None:
    header = header_of(files / f"lora/{name}.safetensors")
    assert header["ss_output_name"] == header["modelspec.title"] == name
    assert header["ss_network_module"] == "networks.lora"
    assert (header["ss_v2"], header["ss_base_model_version"], header["ss_resolution"]) == (
        *("False", "sd_v1_v", "(128, 128)"),
    )
    assert (header["ss_steps"], header["ss_learning_rate"]) == ("7", "0.001")
    assert "ss_min_snr_gamma" not in header and "ss_seed" not in header
    assert json.loads(header["ss_tag_frequency"]) == {name: {word.word: word.count for word in words}}
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.prediction_type"] == "v"
    needed = ("sai_model_spec", "architecture", "implementation", "title", "resolution", "date", "hash_sha256")
    assert all(header[f"modelspec.{key}"] for key in needed)


def test_headers_of_sdxl_say_so(files_xl) -> None:
    header = header_of(files_xl / "lora/partcraft-cub.safetensors")
    assert (header["ss_v2"], header["ss_base_model_version"]) == ("False", "sdxl_base_v1-0")
    assert header["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    word = header_of(files_xl / "embeddings/partcraft-cub/partcraft-cub-head-002.safetensors")
    assert word["modelspec.architecture"] == "stable-diffusion-xl-v1-base/textual-inversion"


def test_digests_are_of_what_follows_the_header(files) -> None:
    paths = [path for path in files.glob("*/**/*.safetensors") if "adapter" not in path.relative_to(files).parts]
    assert len(paths) == 6
    for path in paths:
        content = path.read_bytes()
        digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
        header = header_of(path)
        assert header["modelspec.hash_sha256"] == f"0x{digest}" and header["sshs_model_hash"] == digest


def read_bundle(state: dict) -> dict:
    """AUTOMATIC1111, extensions-builtin/Lora/networks.py, load_network: a key's first part is `bundle_emb`, its second
    the word, and after `string_to_param` comes a name that does not matter."""
    bundled: dict = {}
    for key, weight in state.items():
        module, _, rest = key.partition(".")
        if module == "bundle_emb":
            word, name = rest.split(".", 1)
            entries = bundled.setdefault(word, {})
            if name.split(".")[0] == "string_to_param":
                _, inner = name.split(".", 1)
                entries["string_to_param"] = {inner: weight}
            else:
                entries[name] = weight
    return bundled


def embedding_of(data: dict) -> torch.Tensor:
    """AUTOMATIC1111, modules/textual_inversion/textual_inversion.py, and Forge, backend/text_processing/
    textual_inversion.py, create_embedding_from_data: of SDXL `clip_l` and `clip_g`, here behind each other; else one
    entry. Its first dimension counts vectors."""
    if "string_to_param" not in data and {"clip_l", "clip_g"} <= data.keys():
        assert data["clip_g"].shape[0] == data["clip_l"].shape[0] == 1
        return torch.cat([data["clip_l"], data["clip_g"]], dim=-1).float()
    entries = data.get("string_to_param", data)
    assert len(entries) == 1
    (vectors,) = entries.values()
    assert vectors.ndim == 2 and vectors.shape[0] == 1
    return vectors.float()


def comfyui_embedding(folder: Path, name: str, encoder: str) -> torch.Tensor:
    """ComfyUI, comfy/sd1_clip.py, load_embed: a file of that name in the folder or one below it; the entry of the text
    encoder, `clip_l` or `clip_g`, if there is one, else the first; each row is a token."""
    (path,) = folder.rglob(f"{name}.safetensors")
    entries = load_file(path)
    return entries.get(encoder, next(iter(entries.values())))


def test_the_words_are_what_every_program_reads(files, adapter, words) -> None:
    bundle = read_bundle(load_file(files / "lora/partcraft-cub-bundle.safetensors"))
    assert bundle.keys() == {word.word for word in words}
    for word in words:
        expected = adapter.tokens[word.token][None]
        own = load_file(files / f"embeddings/partcraft-cub/{word.word}.safetensors")
        assert own.keys() == {"emb_params"} and own["emb_params"].dtype == torch.float32
        for read in (embedding_of(own), embedding_of(bundle[word.word]), comfyui_embedding(files, word.word, "clip_l")):
            assert torch.equal(read, expected)


def test_the_pairs_of_sdxl_are_what_every_program_reads(files_xl, adapter_xl, words) -> None:
    bundle = read_bundle(load_file(files_xl / "lora/partcraft-cub-bundle.safetensors"))
    assert bundle.keys() == {word.word for word in words}
    for word in words:
        expected = adapter_xl.tokens[word.token][None]
        own = load_file(files_xl / f"embeddings/partcraft-cub/{word.word}.safetensors")
        # As sd-scripts' sdxl_train_textual_inversion.py, save_weights, has them.
        assert {key: row.shape for key, row in own.items()} == {"clip_l": (1, 16), "clip_g": (1, 24)}
        pair = [comfyui_embedding(files_xl, word.word, encoder) for encoder in ("clip_l", "clip_g")]
        for read in (embedding_of(own), embedding_of(bundle[word.word]), torch.cat(pair, dim=-1)):
            assert torch.equal(read, expected)


def test_forge_finds_nothing_that_it_does_not_know_in_the_file_that_is_for_it(files) -> None:
    """Forge, extensions-builtin/sd_forge_lora/networks.py, load_lora_for_models: more than twelve unknown keys, and
    none is used. ComfyUI, comfy/lora.py, model_lora_keys_unet: known are `lora_unet_` and diffusers' names."""
    plain = load_file(files / "lora/partcraft-cub.safetensors")
    block = r"((down|up)_blocks_\d|mid_block)_attentions_\d_transformer_blocks_0"
    known = re.compile(rf"lora_unet_{block}_attn[12]_to_(q|k|v|out_0)")
    assert plain and all(known.fullmatch(name.partition(".")[0]) for name in plain)
    bundle = load_file(files / "lora/partcraft-cub-bundle.safetensors")
    assert {name for name in bundle if not name.startswith("bundle_emb.")} == plain.keys()


def test_a_word_has_the_picture_that_programs_show_with_it(files, words) -> None:
    folder = files / "embeddings/partcraft-cub"
    for word in words:
        assert (folder / f"{word.word}.preview.png").exists() == (word.crop is not None)


def test_lora_comes_with_the_words_that_a_click_on_it_writes(files) -> None:
    told = json.loads((files / "lora/partcraft-cub-bundle.json").read_text())
    common = "partcraft-cub-background-001 partcraft-cub-head-003 partcraft-cub-wing-000"
    assert told == {"activation text": common, "preferred weight": 1}


@pytest.mark.skipif(not CONFIGS.exists(), reason="no tokenizer of Stable Diffusion 1.5 here")
def test_words_are_found_in_a_prompt_by_their_tokens() -> None:
    """AUTOMATIC1111 and Forge, find_embedding_at_position: at each of a prompt's tokens the longest word is taken whose
    own tokens, as CLIP writes the word alone, follow."""
    tokenizer = CLIPTokenizer.from_pretrained(CONFIGS / "sd15/tokenizer")
    names = ["background", "head", "head 2", "cock's comb"]
    tokens = [PartToken(m, k) for m in range(4) for k in (1, 17, 170)]
    words = words_of(tokens, "partcraft-cub", names, [np.zeros(256)] * 4)
    alone = [(tokenizer(word, add_special_tokens=False).input_ids, word) for word in words]
    alone.sort(key=lambda of_word: -len(of_word[0]))
    ids = tokenizer("a photo of a " + " ".join(words) + ", in the rain", add_special_tokens=False).input_ids
    found, position = [], 0
    while position < len(ids):
        here = ((len(own), word) for own, word in alone if ids[position : position + len(own)] == own)
        length, word = next(here, (1, None))
        found += [word] if word else []
        position += length
    assert found == words
