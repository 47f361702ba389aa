import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ViTConfig,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.part_identity import PartIdentity, most_like
from partcraft_kedro.images.crops import crop_to

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGHT = {**SMALL, "image_size": 32, "patch_size": 8}
MAPS = np.zeros((2, 8, 8), np.uint8)
MAPS[0, 2, 1:3] = 1
MAPS[0, 6, 6] = 2  # one patch: absent
MAPS[1, 4:6, 1] = 1
MAPS[1, 1, 5:7] = 2


@pytest.fixture
def clip_folder(tmp_path):
    torch.manual_seed(0)
    return saved(CLIPVisionModel(CLIPVisionConfig(**SIGHT, initializer_factor=5.0)), tmp_path / "clip")


def saved(network, folder, processor=CLIPImageProcessor):
    network.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    own = {"size": {"shortest_edge": 32}, "crop_size": size} if processor is CLIPImageProcessor else {"size": size}
    processor(**own).save_pretrained(folder)
    return folder


def identity_of(folder, clustered="tiny"):
    return PartIdentity(str(folder), clustered=clustered, part_count=2, min_patches=2, device="cpu")


def cosines_of(identity, pictures, maps, sources, source_maps, origins=None):
    if origins is None:  # picture i is of source i throughout
        origins = np.arange(len(pictures))[:, None].repeat(3, 1)
    theirs = identity.embed_parts(sources, source_maps)[origins, np.arange(3)]
    return F.cosine_similarity(identity.embed_parts(pictures, maps), theirs, dim=-1).numpy()


@pytest.fixture
def pictures():
    """Smooth pictures, (4, 32, 32, 3), which a random network tells apart."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def test_each_part_is_compared_with_its_source(clip_folder, pictures):
    """Part 1 shows in both, part 2 is too small in the first picture; by the model itself, crop by crop."""
    processor, network = AutoImageProcessor.from_pretrained(clip_folder), AutoModel.from_pretrained(clip_folder)

    def embedding(picture, mask):
        with torch.no_grad():
            return network(**processor(crop_to(picture, mask), return_tensors="pt")).pooler_output[0]

    identity = identity_of(clip_folder)
    assert identity.name == f"{clip_folder}, 16 numbers"
    cosines = cosines_of(identity, pictures[:2], MAPS, pictures[2:], MAPS[::-1])
    assert cosines.shape == (2, 3)
    for i, m in ((0, 0), (0, 1), (1, 0), (1, 1)):
        ours, theirs = embedding(pictures[i], MAPS[i] == m), embedding(pictures[2 + i], MAPS[1 - i] == m)
        assert cosines[i, m] == pytest.approx(float(F.cosine_similarity(ours, theirs, dim=0)), abs=0.02)  # bfloat16
        assert cosines[i, m] < 0.97
    assert np.isnan(cosines[:, 2]).all()


def test_a_picture_is_identical_to_itself(clip_folder, pictures):
    cosines = cosines_of(identity_of(clip_folder), pictures[:2], MAPS, pictures[:2], MAPS)
    assert cosines[0] == pytest.approx([1, 1, np.nan], abs=1e-4, nan_ok=True)
    assert cosines[1] == pytest.approx([1, 1, 1], abs=1e-4)


def test_parts_of_several_sources(clip_folder, pictures):
    """A picture made of two sources: the same as each where it is from it."""
    identity = identity_of(clip_folder)
    sources, maps = pictures[[2, 1, 3]], MAPS[[1, 1, 1]]
    cosines = cosines_of(identity, pictures[1:2], MAPS[1:], sources, maps, origins=np.array([[0, 1, 2]]))
    throughout = [
        cosines_of(identity, pictures[1:2], MAPS[1:], sources[i : i + 1], maps[i : i + 1])[0, i] for i in range(3)
    ]
    assert cosines[0] == pytest.approx(throughout, abs=0.02)
    assert cosines[0, 1] == pytest.approx(1, abs=1e-4)
    assert cosines[0, 2] < 0.97


def test_a_part_is_most_like_its_own_source_s_or_not():
    """Of three sources: the first part is, the second is more like another's, the third does not show in its own, the
    fourth in no other."""
    alike = np.array([[0.9, 0.6, 0.3, np.nan], [0.8, 0.7, np.nan, 0.4], [np.nan, 0.1, 0.2, np.nan]])
    np.testing.assert_array_equal(most_like(alike, np.array([0, 0, 1, 1])), [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(most_like(alike[:1], np.zeros(4, int)), [np.nan] * 4)  # no other


def test_of_a_whole_clip_the_vision_tower_serves(tmp_path, pictures):
    torch.manual_seed(0)
    whole = CLIPModel(CLIPConfig(text_config={**SMALL, "vocab_size": 50}, vision_config=SIGHT, projection_dim=8))
    folder = saved(whole, tmp_path / "whole")
    embedded = identity_of(folder).embed_parts(pictures[:1], MAPS[:1])
    prepared = CLIPImageProcessor.from_pretrained(folder)(crop_to(pictures[0], MAPS[0] == 1), return_tensors="pt")
    with torch.no_grad():
        expected = whole.eval().vision_model(**prepared).pooler_output[0]
    torch.testing.assert_close(embedded[0, 1], expected, atol=0.05, rtol=0.05)


def test_another_dinov2_serves(vit_folder, pictures):
    assert cosines_of(identity_of(vit_folder), pictures[:2], MAPS, pictures[:2], MAPS)[1] == pytest.approx(
        [1, 1, 1], abs=1e-4
    )


def test_the_model_that_found_the_parts_is_refused(vit_folder):
    with pytest.raises(UserError, match=r"evaluate\.part_identity='.*vit' is features\.model"):
        identity_of(vit_folder, clustered=str(vit_folder))


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match=r"evaluate\.part_identity='nowhere' is neither"):
        identity_of("nowhere")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"evaluate\.part_identity='.*' cannot be loaded as an image model"):
        identity_of(tmp_path)


def test_a_model_whose_pooling_was_never_trained_is_refused(tmp_path):
    folder = saved(ViTModel(ViTConfig(**SIGHT), add_pooling_layer=False), tmp_path / "vit", ViTImageProcessor)
    with pytest.raises(UserError, match="lacks weights of its ViTModel, such as pooler"):
        identity_of(folder)


def test_a_model_without_pooled_output_is_refused(tmp_path):
    folder = saved(ViTMAEModel(ViTMAEConfig(**SIGHT)), tmp_path / "mae", ViTImageProcessor)
    with pytest.raises(UserError, match="has no pooled output"):
        identity_of(folder)
