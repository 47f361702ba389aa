"""Base models that are one file, as most people have them: random weights under the original names."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from original_layout import checkpoint_of
from safetensors.torch import load_file, save_file

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model.base import load_base
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import BaseModelOptions, SamplingOptions
from partcraft_kedro.stages import key_of_options
from partcraft_kedro.weights import base_fingerprint, resolve_base

LEARNS = {"variants": [3, 4], "unet": "lora", "rank": 2, "lora_layers": "cross", "bottleneck_layers": 2, "seed": 0}


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> str:
    """The folder of a Stable Diffusion 1 or 2: tiny with a U-Net of their block types."""
    pipeline = load_base("tiny", "cpu")
    torch.manual_seed(0)
    pipeline.register_modules(
        unet=UNet2DConditionModel(
            sample_size=32,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
            cross_attention_dim=pipeline.text_encoder.config.hidden_size,
            attention_head_dim=2,
        )
    )
    folder = tmp_path_factory.mktemp("small") / "base"
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory, small, small_xl) -> dict[str, Path]:
    """One of each family."""
    folder = tmp_path_factory.mktemp("checkpoints")
    one, xl = load_base(small, "cpu"), load_base(str(small_xl), "cpu")
    weights = {"1": checkpoint_of(one), "2": checkpoint_of(one, open_clip=True), "XL": checkpoint_of(xl)}
    for family, of_family in weights.items():
        save_file({name: weight.half() for name, weight in of_family.items()}, folder / f"{family}.safetensors")
    return {family: folder / f"{family}.safetensors" for family in weights}


@pytest.fixture
def change(checkpoints, tmp_path) -> Callable[..., str]:
    """Writes a checkpoint that is changed by a function of its weights; returns its path."""

    def write(of_weights: Callable[[dict], object], family: str = "1") -> str:
        weights = load_file(checkpoints[family])
        of_weights(weights)
        save_file(weights, tmp_path / "changed.safetensors")
        return str(tmp_path / "changed.safetensors")

    return write


@pytest.mark.parametrize("family", ["1", "2", "XL"])
def test_a_file_is_the_model_that_its_folder_is(checkpoints, small, small_xl, family) -> None:
    folder = str(small_xl) if family == "XL" else small
    found, expected = load_base(str(checkpoints[family]), "cpu", config=folder), load_base(folder, "cpu")
    assert type(found) is type(expected)
    assert found.scheduler.config == expected.scheduler.config
    for name, network in expected.components.items():
        if isinstance(network, torch.nn.Module):
            weights = getattr(found, name).state_dict()
            assert weights.keys() == network.state_dict().keys()
            for key, weight in network.state_dict().items():
                assert weights[key].dtype == torch.float32
                torch.testing.assert_close(weights[key], weight.half().float(), atol=0, rtol=0)
    text = "a photo of a red bird"
    assert found.tokenizer(text).input_ids == expected.tokenizer(text).input_ids


def test_settings_alone_are_read_of_its_folder(checkpoints, small, tmp_path) -> None:
    """A whole folder may be given: its weights are not those of the model."""
    folder = shutil.copytree(small, tmp_path / "settings")
    key = key_of_options(BaseModelOptions(model=str(checkpoints["1"]), config=str(folder)), tmp_path)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    assert load_base(str(checkpoints["1"]), "cpu", config=str(folder)).unet.conv_in.weight.any()
    assert key_of_options(BaseModelOptions(model=str(checkpoints["1"]), config=str(folder)), tmp_path) == key


def test_file_and_settings_are_in_its_key_and_places_are_not(checkpoints, change, small, tmp_path) -> None:
    moved = shutil.copy(checkpoints["1"], tmp_path / "moved.safetensors")
    settings = shutil.copytree(small, tmp_path / "settings")
    other_settings = shutil.copytree(small, tmp_path / "others")
    scheduler = next(other_settings.glob("scheduler/*.json"))
    scheduler.write_text(scheduler.read_text().replace("v_prediction", "epsilon"))
    other = change(lambda weights: weights["first_stage_model.quant_conv.bias"].add_(1))

    def keys(model: object, config: object) -> list:
        options = BaseModelOptions(model=str(model), config=str(config))
        return [key_of_options(options, tmp_path), base_fingerprint(options.model, options.config)]

    before = keys(checkpoints["1"], small)
    assert keys(moved, settings) == before
    for changed in (keys(other, settings), keys(moved, other_settings)):
        assert changed[0] != before[0] and changed[1] != before[1]


def test_an_adapter_of_a_file_draws_the_same_after_it_was_saved(checkpoints, change, small, tmp_path) -> None:
    model = PartCraft.create(str(checkpoints["1"]), "cpu", "float32", config=small, **LEARNS)
    sampling = SamplingOptions(steps=1)
    expected = sample_pictures(model, ["a [0,1] [1,2]"], ["one"], sampling, seed=3)
    model.save_adapter(tmp_path / "adapter", {})
    again = PartCraft.load(tmp_path / "adapter", "cpu", "float32")
    torch.testing.assert_close(sample_pictures(again, ["a [0,1] [1,2]"], ["one"], sampling, seed=3), expected)
    other = change(lambda weights: weights["first_stage_model.quant_conv.bias"].add_(1))
    told = r"^base\.model='.*changed.*' with base\.config='.*' is not what .* was '.*1\..*' with base\.config='.*' then"
    with pytest.raises(UserError, match=told):
        PartCraft.load(tmp_path / "adapter", "cpu", "float32", other, small)


def keep(*beginnings: str) -> Callable[[dict], None]:
    def leave(weights: dict) -> None:
        for name in [name for name in weights if not name.startswith(beginnings)]:
            del weights[name]

    return leave


def as_lora(weights: dict) -> None:
    weights.clear()
    weights["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"] = torch.ones(2, 2)


def as_bare_vae(weights: dict) -> None:
    bare = {name.removeprefix("first_stage_model."): weight for name, weight in weights.items()}
    weights.clear()
    weights.update({name: weight for name, weight in bare.items() if name.startswith(("encoder", "decoder", "quant"))})


@pytest.mark.parametrize(
    ("of_weights", "told"),
    [
        (as_lora, "is a LoRA, which changes a model and is none: give a checkpoint"),
        (keep("first_stage_model."), "is a VAE alone: give a checkpoint"),
        (as_bare_vae, "is a VAE alone: give a checkpoint"),
        (keep("cond_stage_model."), "has no U-Net under the names of a checkpoint: give"),
        (keep("model.", "cond_stage_model."), "has no VAE: give"),
        (keep("model.", "first_stage_model."), "has no text encoder of Stable Diffusion 1, 2 or XL: give"),
    ],
)
def test_what_is_no_whole_checkpoint_is_told_before_anything_is_loaded(change, of_weights, told) -> None:
    path = change(of_weights)
    with pytest.raises(UserError, match=rf"^base\.model='{path}' {told}"):
        resolve_base(path, "tiny")


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.pth"])
def test_a_pickle_is_refused_with_the_reason(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"is a pickle, which runs whatever code is in it when it is read: give a \.saf"
    ):
        resolve_base(str(tmp_path / name))


@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_refused(checkpoints, tmp_path, share) -> None:
    content = checkpoints["1"].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    for read in (resolve_base, load_base):
        with pytest.raises(UserError, match=r"is no whole \.safetensors file \(.+\): fetch it again\.$"):
            read(str(path), "tiny") if read is resolve_base else read(str(path), "cpu", config="tiny")


@pytest.mark.parametrize(
    ("family", "weight", "of_what"),
    [
        ("1", "model.diffusion_model.input_blocks.0.0.weight", "U-Net or VAE: give a whole model"),
        ("1", "first_stage_model.decoder.conv_out.bias", "U-Net or VAE: give a whole model"),
        ("1", "cond_stage_model.transformer.text_model.final_layer_norm.bias", "CLIPTextModel, such as"),
        ("XL", "conditioner.embedders.1.model.ln_final.bias", "CLIPTextModelWithProjection, such as"),
    ],
)
def test_a_weight_that_is_missing_is_an_error_and_never_random(
    change, small, small_xl, family, weight, of_what
) -> None:
    path = change(lambda weights: weights.pop(weight), family)
    with pytest.raises(UserError, match=rf"^base\.model='{path}' lacks weights of its {of_what}"):
        load_base(path, "cpu", config=str(small_xl) if family == "XL" else small)


def test_weights_that_are_no_numbers_are_refused(change, small) -> None:
    path = change(lambda weights: weights["first_stage_model.quant_conv.bias"].fill_(torch.nan))
    with pytest.raises(UserError, match=r"is damaged, since its weights quant_conv\.bias are not all finite"):
        load_base(path, "cpu", config=small)


def test_a_larger_unet_than_its_settings_say_is_refused(change, small) -> None:
    block = "model.diffusion_model.middle_block.1.transformer_blocks"
    path = change(
        lambda weights: weights.update(
            {k.replace("blocks.0", "blocks.1"): v.clone() for k, v in weights.items() if k.startswith(f"{block}.0.")}
        )
    )
    with pytest.raises(UserError, match=r"has a larger U-Net than base\.config='.*base' says: give that of its kind"):
        load_base(path, "cpu", config=small)


def test_settings_of_another_kind_are_refused(checkpoints, small_xl) -> None:
    with pytest.raises(UserError, match=r"^base\.config='tiny' is a StableDiffusionPipeline, which cannot be used"):
        resolve_base(str(checkpoints["XL"]), "tiny")
    with pytest.raises(UserError, match=r"^base\.config='.*' is a StableDiffusionXLPipeline, .* give .* 1 or 2\.$"):
        resolve_base(str(checkpoints["1"]), str(small_xl))
    with pytest.raises(UserError, match=r"^base\.config='tiny' is for a model that is one file, .*'tiny' is none\.$"):
        resolve_base("tiny", "tiny")
    with pytest.raises(UserError, match=r"^base\.config='nowhere' is neither"):
        resolve_base(str(checkpoints["1"]), "nowhere")


def test_without_settings_they_are_those_of_its_family_on_the_hub(checkpoints) -> None:
    """Tests reach no hub."""
    assert resolve_base(str(checkpoints["1"])) == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert resolve_base(str(checkpoints["XL"])) == "stabilityai/stable-diffusion-xl-base-1.0"
    with pytest.raises(UserError, match="does not tell whether it predicts noise or v: give "):
        resolve_base(str(checkpoints["2"]))
    with pytest.raises(UserError, match=r"^base\.config='stable-.*' is not on this machine .* --params base\.config=<"):
        load_base(str(checkpoints["1"]), "cpu")
