"""Adapters that are loaded onto a base model."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.weights import TINY

FILES = {
    "frozen": "",
    "lora": "pytorch_lora_weights.safetensors",
    "key_value": "unet.safetensors",
    "full": "unet.safetensors",
}


def create(folder, unet, base="tiny"):
    learns = {"unet": unet, "rank": 2, "lora_layers": "cross", "bottleneck_layers": 1}
    PartCraft.create(base, "cpu", "float32", variants=[2, 3], **learns, seed=0).save_adapter(folder, {})
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Untrained adapters, by what would learn of the U-Net."""
    folder = tmp_path_factory.mktemp("adapters")
    return {unet: create(folder / unet, unet) for unet in FILES}


@pytest.fixture
def copy_of(adapters, tmp_path):
    return lambda unet: shutil.copytree(adapters[unet], tmp_path / "adapter")


def change(path, change):
    with safe_open(path, "pt") as file:
        weights, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(change(weights), path, metadata)


def renamed(weights):
    return {name.replace("attn2", "attention"): weight for name, weight in weights.items()}


def of_another_prefix(weights):
    return {f"other.{name}": weight for name, weight in weights.items()}


def without_one(weights):
    weights.pop(max(weights))
    return weights


def with_one_more(weights):
    return weights | {max(weights).replace("up_blocks.", "up_blocks.7"): torch.ones(2)}


def of_another_shape(weights):
    return weights | {max(weights): torch.ones(3, 3)}


def not_a_number(weights):
    weights[max(weights)][0] = torch.nan
    return weights


@pytest.mark.parametrize("unet", ["lora", "key_value", "full"])
@pytest.mark.parametrize("damage", [renamed, of_another_prefix, without_one, with_one_more, of_another_shape])
def test_weights_that_do_not_fit_the_unet_are_refused(copy_of, unet, damage):
    folder = copy_of(unet)
    change(folder / FILES[unet], damage)
    with pytest.raises(UserError, match=rf"adapter/{FILES[unet]} does not fit its adapter's base model and settings"):
        PartCraft.load(folder, "cpu")


@pytest.mark.parametrize("damage", [of_another_prefix, without_one, of_another_shape])
def test_a_part_encoder_that_does_not_fit_is_refused(copy_of, damage):
    folder = copy_of("frozen")
    change(folder / "part_encoder.safetensors", damage)
    with pytest.raises(UserError, match=r"adapter/part_encoder\.safetensors does not fit"):
        PartCraft.load(folder, "cpu")


@pytest.mark.parametrize("file", ["unet.safetensors", "part_encoder.safetensors"])
def test_an_adapter_with_weights_that_are_no_numbers_is_refused(copy_of, file):
    folder = copy_of("key_value")
    change(folder / file, not_a_number)
    with pytest.raises(UserError, match=rf"adapter/{file} is damaged"):
        PartCraft.load(folder, "cpu")


def test_an_adapter_s_base_may_have_moved_but_not_changed(tmp_path):
    old = shutil.copytree(TINY / "base", tmp_path / "old")
    folder = create(tmp_path / "adapter", "frozen", str(old))
    new = str(old.rename(tmp_path / "new"))
    with pytest.raises(UserError, match=r"^base\.model='.*old' is neither"):
        PartCraft.load(folder, "cpu")
    assert PartCraft.load(folder, "cpu", base=new).settings["base"] == new
    weights = next(tmp_path.glob("new/unet/*.safetensors"))
    change(weights, lambda weights: {name: weight / 2 for name, weight in weights.items()})
    with pytest.raises(UserError, match=r"^base\.model='.*new' is not what the adapter .* which was '.*old' then"):
        PartCraft.load(folder, "cpu", base=new)


def test_settings_that_lack_something_are_refused(copy_of):
    folder = copy_of("frozen")
    settings = json.loads((folder / "adapter.json").read_text())
    settings.pop("base_fingerprint")
    (folder / "adapter.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"does not hold a whole adapter \('base_fingerprint'\)"):
        PartCraft.load(folder, "cpu")
