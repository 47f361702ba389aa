import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, Dinov2Model

from partcraft_kedro.errors import UserError
from partcraft_kedro.features import extractor as extractor_module
from partcraft_kedro.features.extractor import FeatureExtractor


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
