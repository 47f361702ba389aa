"""Base models as people have them: one precision, a variant, another pipeline, damaged."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.base import load_base
from partcraft_kedro.weights import TINY, model_fingerprint, resolve_base

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A copy of tiny's base."""
    return shutil.copytree(TINY / "base", tmp_path / "base")


def weights_of(module):
    return module.state_dict()


@pytest.mark.parametrize("components", ["*", "unet"])
def test_weights_in_float16_alone_are_loaded(folder, components):
    for path in list(folder.glob(f"{components}/*.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))
    loaded, expected = load_base(str(folder), "cpu"), load_base("tiny", "cpu")
    for name in ("unet", "vae", "text_encoder"):
        found = weights_of(getattr(loaded, name))
        assert all(torch.equal(found[key], value) for key, value in weights_of(getattr(expected, name)).items())
        assert getattr(loaded, name).dtype == torch.float32


def test_of_several_variants_the_plain_one_is_loaded(folder):
    nothing = {name: torch.zeros_like(weight) for name, weight in load_file(folder / "unet" / WEIGHTS).items()}
    before = model_fingerprint(str(folder), "base", "base.model")
    for variant in ("fp16", "non_ema"):
        save_file(nothing, (folder / "unet" / WEIGHTS).with_suffix(f".{variant}.safetensors"))
    assert load_base(str(folder), "cpu").unet.conv_in.weight.any()
    assert model_fingerprint(str(folder), "base", "base.model") == before


def changed(change):
    def damage(folder, component):
        path = next((folder / component).glob("*.safetensors"))
        weights = load_file(path)
        change(weights)
        save_file(weights, path, {"format": "pt"})

    return damage


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (changed(lambda weights: weights.pop(min(weights))), "lacks weights of its "),
        (changed(lambda weights: weights.update(other=torch.ones(1))), "has no place for, such as other"),
        (changed(lambda weights: weights.update({min(weights): torch.ones(1)})), "has weights of another shape"),
        (changed(lambda weights: weights[min(weights)].fill_(torch.inf)), "is damaged"),
        (lambda folder, component: shutil.rmtree(folder / component), "cannot be loaded as a Stable Diffusion model"),
    ],
    ids=["missing", "left over", "shape", "infinite", "no folder"],
)
def test_a_base_that_is_not_whole_is_refused(folder, component, damage, told):
    damage(folder, component)
    with pytest.raises(UserError, match=rf"^base\.model='.*base' .*{told}"):
        load_base(str(folder), "cpu")


def test_a_base_without_its_tokenizer_is_refused(folder):
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(UserError, match=r"has a tokenizer of \d words for the \d+ of its text encoder"):
        load_base(str(folder), "cpu")


@pytest.mark.parametrize("index", ["", "{}", "[1]", None])
def test_a_folder_without_a_readable_index_is_refused(folder, index):
    (folder / "model_index.json").unlink()
    if index is not None:
        (folder / "model_index.json").write_text(index)
    with pytest.raises(UserError, match=r"'.*base' cannot be loaded as .*: its model_index\.json cannot be read"):
        resolve_base(str(folder))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("StableDiffusion3Pipeline", "is a StableDiffusion3Pipeline, which cannot be used here"),
        ("StableDiffusionInpaintPipeline", "is a StableDiffusionInpaintPipeline, which cannot be used here"),
    ],
)
def test_another_pipeline_is_refused_by_its_name(folder, kind, told):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    for load in (resolve_base, load_base):  # the first before anything runs, with no network loaded
        with pytest.raises(UserError, match=told):
            load(str(folder))
