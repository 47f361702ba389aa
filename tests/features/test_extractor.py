import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from partcraft_kedro.errors import UserError
from partcraft_kedro.features import extractor as extractor_module
from partcraft_kedro.features.extractor import FeatureExtractor

SMALL = {"image_size": 32, "patch_size": 8, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
SHALLOW = {"num_hidden_layers": 1, "stage_names": ["stem", "stage1"], "out_features": ["stage1"], "out_indices": [1]}
REAL = Path(__file__).parents[3] / "shared/weights/dinov2-small-imgfocus"


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def in_float32(monkeypatch):
    """On this machine too, whatever its processor."""
    monkeypatch.setattr(extractor_module, "half_precision", lambda device: None)


def test_features_are_the_last_block_s_before_the_final_norm(vit_folder, pictures, in_float32):
    extractor = FeatureExtractor(str(vit_folder))
    assert (extractor.size, extractor.grid, extractor.width) == (32, 4, 12)
    processor, network = AutoImageProcessor.from_pretrained(vit_folder), Dinov2Model.from_pretrained(vit_folder)
    prepared = processor(list(pictures), do_resize=False, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = network(prepared, output_hidden_states=True)
    features = extractor(pictures)
    torch.testing.assert_close(features, expected.hidden_states[-1][:, 1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(features, expected.last_hidden_state[:, 1:], atol=1e-2)


def test_bytes_and_floats_give_the_same_features(vit_folder, pictures):
    extractor = FeatureExtractor(str(vit_folder))
    as_floats = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    assert torch.equal(extractor(as_floats), extractor(pictures))


@pytest.mark.parametrize("side", [64, 24])
def test_pictures_of_another_size_are_resized_smoothly(vit_folder, side):
    rows, columns = np.mgrid[0:side, 0:side] / side
    picture = np.stack([rows, columns, np.sin(6 * rows) ** 2], axis=-1)
    picture = (255 * picture).astype(np.uint8)
    resized = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC))
    extractor = FeatureExtractor(str(vit_folder))
    torch.testing.assert_close(extractor(picture[None]), extractor(resized[None]), atol=0.1, rtol=0.05)


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match=r"features\.model="):
        FeatureExtractor("nowhere")


def test_in_bfloat16_features_change_by_rounding_alone(vit_folder, pictures, monkeypatch):
    found = []
    for half in (None, torch.bfloat16):
        monkeypatch.setattr(extractor_module, "half_precision", lambda device, half=half: half)
        found.append(FeatureExtractor(str(vit_folder), device="cpu")(pictures))
    assert found[1].dtype == torch.float32
    assert not torch.equal(*found)
    assert torch.nn.functional.cosine_similarity(*found, dim=-1).min() > 0.999


def test_a_layer_and_the_final_norm_are_transformers_own(vit_folder, pictures, in_float32):
    processor, network = AutoImageProcessor.from_pretrained(vit_folder), Dinov2Model.from_pretrained(vit_folder)
    prepared = processor(list(pictures), do_resize=False, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = network(prepared, output_hidden_states=True)
    first = FeatureExtractor(str(vit_folder), layer=1)(pictures)
    torch.testing.assert_close(first, expected.hidden_states[1][:, 1:], atol=1e-5, rtol=1e-5)
    normed = FeatureExtractor(str(vit_folder), final_norm=True)(pictures)
    torch.testing.assert_close(normed, expected.last_hidden_state[:, 1:], atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match=r"features\.layer=3 is too large: .* has 2 blocks"):
        FeatureExtractor(str(vit_folder), layer=3)


def test_mirrored_a_picture_has_the_mean_of_both_and_its_mirror_image_the_mirrored_features(vit_folder, pictures):
    plain, mirrored = FeatureExtractor(str(vit_folder)), FeatureExtractor(str(vit_folder), mirrored=True)
    as_grid = lambda features: features.unflatten(1, (4, 4))  # noqa: E731
    flipped = np.ascontiguousarray(pictures[:, :, ::-1])
    expected = (as_grid(plain(pictures)) + as_grid(plain(flipped)).flip(2)) / 2
    torch.testing.assert_close(as_grid(mirrored(pictures)), expected)
    torch.testing.assert_close(as_grid(mirrored(flipped)).flip(2), expected)
    assert not torch.allclose(as_grid(plain(flipped)).flip(2), as_grid(plain(pictures)), atol=0.1)


def saved(network, folder):
    network.save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


WITH_REGISTERS = {
    "DINOv2": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3, initializer_range=0.3)
    ),
    "DINOv3": lambda: DINOv3ViTModel(
        DINOv3ViTConfig(
            **SMALL | {"hidden_size": 16}, num_register_tokens=4, initializer_range=0.3, intermediate_size=16
        )
    ),
}


@pytest.mark.parametrize(("kind", "registers"), [("DINOv2", 3), ("DINOv3", 4)])
def test_of_a_model_with_registers_the_patches_alone_are_features(kind, registers, pictures, tmp_path, in_float32):
    torch.manual_seed(0)
    folder = saved(WITH_REGISTERS[kind](), tmp_path / "registers")
    processor, network = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    prepared = processor(list(pictures), do_resize=False, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = network(prepared, output_hidden_states=True)
    normed = FeatureExtractor(str(folder), final_norm=True)(pictures)
    torch.testing.assert_close(normed, expected.last_hidden_state[:, 1 + registers :], atol=1e-5, rtol=1e-5)
    first = FeatureExtractor(str(folder), layer=1)(pictures)
    torch.testing.assert_close(first, expected.hidden_states[1][:, 1 + registers :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["DINOv2", "DINOv3"])
def test_at_another_size_the_grid_is_another(kind, pictures, tmp_path, in_float32):
    torch.manual_seed(0)
    folder = saved(WITH_REGISTERS[kind](), tmp_path / "model")
    larger = pictures.repeat(2, 1).repeat(2, 2)
    processor, network = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    prepared = processor(list(larger), do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = network(prepared).last_hidden_state[:, -64:]
    extractor = FeatureExtractor(str(folder), final_norm=True, size=64)
    assert (extractor.size, extractor.grid) == (64, 8)
    torch.testing.assert_close(extractor(larger), expected, atol=1e-5, rtol=1e-5)
    assert FeatureExtractor(str(folder), size=39)(larger).shape[1] == 16
    with pytest.raises(UserError, match=r"^features\.size=7 is too small: .* has patches of 8 pixels"):
        FeatureExtractor(str(folder), size=7)


@pytest.mark.parametrize(
    "network",
    [
        lambda: CLIPVisionModel(CLIPVisionConfig(**SMALL, intermediate_size=16)),
        lambda: SiglipVisionModel(SiglipVisionConfig(**SMALL, intermediate_size=16)),
        lambda: ViTModel(ViTConfig(**SMALL, intermediate_size=16)),
    ],
    ids=["CLIPVisionModel", "SiglipVisionModel", "ViTModel"],
)
def test_another_architecture_is_refused_by_its_name(network, tmp_path, request):
    folder = saved(network(), tmp_path / "model")
    with pytest.raises(
        UserError, match=rf"^features\.model='.*model' holds a {request.node.callspec.id}, which is not"
    ):
        FeatureExtractor(str(folder))


def changed_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def changed_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda folder: changed_config(folder, num_hidden_layers=3),
            "lacks weights of its Dinov2Model, such as encoder.layer.2",
        ),
        (lambda folder: changed_config(folder, **SHALLOW), "has no place for, such as encoder.layer.1"),
        (lambda folder: changed_config(folder, hidden_size=24), "has weights of another shape"),
        (lambda folder: changed_weights(folder, lambda weights: weights.pop("layernorm.bias")), "as layernorm.bias"),
        (lambda folder: changed_weights(folder, lambda weights: weights["layernorm.bias"].fill_(torch.nan)), "damaged"),
        (lambda folder: saved(Dinov2ForImageClassification(Dinov2Config(**SMALL)), folder), "such as classifier.bias"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"12345678"),
            "cannot be loaded as a DINOv2 or",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded as a DINOv2 or"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded as a DINOv2 or"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "cannot be loaded as a DINOv2 or"),
        (lambda folder: BitImageProcessor(do_center_crop=False).save_pretrained(folder), "lacks image_mean, image_std"),
    ],
)
def test_a_model_that_is_not_whole_is_refused(vit_folder, damage, told):
    damage(vit_folder)
    with pytest.raises(UserError, match=rf"^features\.model='.*vit' .*{told}"):
        FeatureExtractor(str(vit_folder))


def test_weights_in_float16_alone_are_loaded(vit_folder, pictures):
    expected = FeatureExtractor(str(vit_folder))(pictures)
    (vit_folder / "model.safetensors").rename(vit_folder / "model.fp16.safetensors")
    assert torch.equal(FeatureExtractor(str(vit_folder))(pictures), expected)


@pytest.mark.skipif(not REAL.exists(), reason="no weights of DINOv2 here")
def test_a_real_dinov2_is_loaded(pictures):
    extractor = FeatureExtractor(str(REAL), device="cpu")
    assert (extractor.grid, extractor.width) == (16, 384)
    assert extractor(pictures[:1]).isfinite().all()
