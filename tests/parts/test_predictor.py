import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from partcraft_kedro.errors import UserError
from partcraft_kedro.parts.predictor import (
    ABSENT,
    PartPredictor,
    foreground_of,
    masks_of,
    part_means,
    part_points,
    trim,
)

ROOT = 0.5**0.5
BACKGROUND, FIRST, SECOND = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
# Two pictures of 2×2 patches: background, part 1, part 1, part 2; and background alone.
FEATURES = torch.tensor([[[3, 0, 0], [0, 2, 0], [0, 0.1, 0.02], [0, 0, 5]], [[1, 0.1, 0]] * 4])


@pytest.fixture
def predictor():
    """Part 1 has two variants, pure and a little towards part 2; the others have one."""
    return PartPredictor(
        torch.tensor([BACKGROUND, [0, ROOT, ROOT]]),
        torch.tensor([FIRST, SECOND]),
        [torch.tensor([BACKGROUND]), torch.tensor([FIRST, [0.0, 0.8, 0.6]]), torch.tensor([SECOND])],
        discovery="plain",
        features={"model": "tiny"},
        min_patches=1,
    )


def random_predictor(feature_model, width=12):
    unit = lambda rows: torch.nn.functional.normalize(torch.randn(rows, width), dim=-1)  # noqa: E731
    variants = [unit(3), unit(5), unit(2)]
    return PartPredictor(
        unit(2), unit(2), variants, discovery="plain", features={"model": feature_model}, min_patches=2
    )


def test_label_maps_and_codes_by_hand(predictor):
    labels = predictor.label_maps(FEATURES)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[[0, 1], [1, 2]], [[0, 0], [0, 0]]]
    assert predictor.codes_of(FEATURES, labels)[0].tolist() == [[0, 0, 0], [0, ABSENT, ABSENT]]
    predictor.min_patches = 2
    assert predictor.codes_of(FEATURES, labels)[0].tolist() == [[ABSENT, 0, ABSENT], [0, ABSENT, ABSENT]]


def test_trimmed_label_maps_are_of_what_a_trial_leaves(tmp_path):
    """Four patches of foreground, two and two alike; the first centroid of the trial takes two of them away."""
    features = torch.tensor([[[0.0, 5, 1], [0, 5, 1], [0, 5, -1], [0, 5, -1]]])
    foreground = foreground_of(features, torch.tensor([BACKGROUND, FIRST]))
    points = part_points(features, foreground, "trimmed")[0]
    trial = torch.stack([points[3], points[0]])
    assert trim(features, foreground, trial).tolist() == [[True, True, False, False]]
    assert trim(features, foreground, None).all()
    predictor = PartPredictor(
        torch.tensor([BACKGROUND, FIRST]), torch.tensor([FIRST]), [torch.tensor([BACKGROUND]), torch.tensor([FIRST])],
        trial=trial, discovery="trimmed", features={"model": "tiny"}, min_patches=1,
    )  # fmt: skip
    assert predictor.label_maps(features).tolist() == [[[1, 1], [0, 0]]]
    predictor.save(tmp_path)
    assert PartPredictor.load(tmp_path).label_maps(features).tolist() == [[[1, 1], [0, 0]]]


def test_whitened_label_maps_are_of_whitened_features_saved_and_loaded(tmp_path):
    """The first two patches differ from the others in one direction, first and third in another, by less."""
    up, side = torch.tensor([0, 0, 1.0, 1.0]), torch.tensor([0, 0, 1.0, -1.0])  # along no axis
    features = (
        torch.tensor([0, 5.0, 0, 0]) + torch.stack([2 * up + side, 2 * up - side, side - 2 * up, -side - 2 * up])[None]
    )
    light = torch.eye(4) - 0.49 * torch.outer(up, up)  # makes light of the first of them
    parts = torch.nn.functional.normalize(torch.stack([up, side]))
    predictor = PartPredictor(
        torch.eye(4)[:2], parts, [torch.eye(4)[m : m + 1].clone() for m in range(3)],
        whitening=light, discovery="whitened", features={"model": "tiny"}, min_patches=1,
    )  # fmt: skip
    assert predictor.label_maps(features).tolist() == [[[2, 1], [2, 1]]]
    predictor.save(tmp_path)
    assert PartPredictor.load(tmp_path).label_maps(features).tolist() == [[[2, 1], [2, 1]]]
    predictor.whitening = None
    assert predictor.label_maps(features).tolist() == [[[1, 1], [2, 2]]]
    predictor.save(tmp_path)
    with pytest.raises(UserError, match=r"does not hold a whole part predictor \('whitening'\)"):
        PartPredictor.load(tmp_path)


def test_the_code_is_that_of_the_mean_feature(predictor):
    """The mean of (0, 1, 0) and (0, .6, .7), (0, .8, .35), is nearer to (0, .8, .6) than to (0, 1, 0)."""
    features = torch.tensor([[[0, 1, 0], [0, 1.8, 1.7], [0, 0, 1], [0, 0, 1]]])
    labels = predictor.label_maps(features)
    assert labels.tolist() == [[[1, 1], [2, 2]]]
    # (0, 1.4, .85): cosines .855 with (0, 1, 0) and .995 with (0, .8, .6).
    codes, cosines = predictor.codes_of(features, labels)
    assert codes.tolist() == [[ABSENT, 1, 0]]
    assert cosines.tolist() == [pytest.approx([0, 0.9952, 1], abs=1e-4)]


def test_whitened_codes_are_of_whitened_means(predictor):
    """The same means, in a space that makes light of the third direction: (0, 1.4, .85) becomes (0, 1.4, .17), whose
    cosine with (0, 1, 0) is .9927, and with (0, .8, .12) .9996."""
    features = torch.tensor([[[0, 1, 0], [0, 1.8, 1.7], [0, 0, 1], [0, 0, 1]]])
    labels = predictor.label_maps(features)
    predictor.whitening = torch.diag(torch.tensor([1, 1, 0.2]))
    codes, cosines = predictor.codes_of(features, labels)
    assert codes.tolist() == [[ABSENT, 1, 0]]
    assert cosines.tolist() == [pytest.approx([0, 0.9996, 1], abs=1e-4)]
    predictor.whitening = torch.diag(torch.tensor([1, 0.2, 1]))  # (0, .28, .85) is nearer to the third axis
    predictor.variants[1] = torch.tensor([FIRST, SECOND])
    assert predictor.codes_of(features, labels)[0].tolist() == [[ABSENT, 1, 0]]


def test_variants_are_as_alike_as_tier_3_sees_them(predictor):
    assert predictor.likeness(1).tolist() == [pytest.approx([1, 0.8]), pytest.approx([0.8, 1])]
    predictor.whitening = torch.diag(torch.tensor([1, 1, 0.2]))  # (0, .8, .12) has the length .80895
    assert predictor.likeness(1)[0].tolist() == pytest.approx([1, 0.9889], abs=1e-4)


def test_part_means_by_hand(predictor):
    means, present = part_means(FEATURES, predictor.label_maps(FEATURES), 3, 2)
    torch.testing.assert_close(means[0], torch.tensor([[3, 0, 0], [0, 1.05, 0.01], [0, 0, 5]]))
    assert present.tolist() == [[False, True, False], [True, False, False]]


def test_masks_cover_each_patch_once(predictor):
    masks = masks_of(predictor.label_maps(FEATURES), 2)
    assert masks.shape == (2, 3, 2, 2)
    assert masks[0].astype(int).tolist() == [[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]]
    assert (masks.sum(1) == 1).all()


def test_centroids_of_codes_are_zero_for_absent_parts(predictor):
    centroids = predictor.get_centroids(np.array([[0, 1, ABSENT], [ABSENT, 0, 0]]))
    expected = [[BACKGROUND, [0, 0.8, 0.6], [0, 0, 0]], [[0, 0, 0], FIRST, SECOND]]
    assert centroids.tolist() == pytest.approx(np.array(expected), abs=1e-6)


def test_sizes(predictor):
    assert (predictor.part_count, predictor.variant_count) == (2, 2)


def test_saved_and_loaded_it_gives_the_same_codes_of_pictures(vit_folder, tmp_path):
    torch.manual_seed(1)
    predictor = random_predictor(str(vit_folder))
    pictures = np.random.default_rng(0).integers(0, 256, (70, 40, 40, 3), dtype=np.uint8)  # more than one batch
    labels, codes, _ = predictor.segment(pictures)
    assert len(np.unique(labels)) == 3
    assert len(np.unique(codes[:, 1])) > 2
    predictor.save(tmp_path)
    loaded = PartPredictor.load(tmp_path)
    assert np.array_equal(loaded.predict(pictures), codes)
    assert np.array_equal(loaded.masks(pictures), masks_of(labels, 2))
    as_floats = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    assert np.array_equal(loaded.predict(as_floats), codes)


@pytest.mark.parametrize("name", ["part_predictor.json", "centroids.safetensors"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:20])])
def test_a_folder_that_is_not_whole_is_refused(predictor, tmp_path, name, damage):
    predictor.save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(UserError, match="does not hold a whole part predictor"):
        PartPredictor.load(tmp_path)


def test_a_predictor_with_more_parts_than_its_settings_say_is_refused(predictor, tmp_path):
    predictor.save(tmp_path)
    settings = json.loads((tmp_path / "part_predictor.json").read_text())
    (tmp_path / "part_predictor.json").write_text(json.dumps(settings | {"parts": 1}))
    with pytest.raises(UserError, match=r"does not hold a whole part predictor \(variants\.2 is left over\)"):
        PartPredictor.load(tmp_path)


def test_features_of_another_width_are_refused(vit_folder):
    pictures = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(UserError, match=r"features\.model='.*vit' gives features of 12 numbers, .* made for 5"):
        random_predictor(str(vit_folder), width=5).predict(pictures)


def test_features_are_computed_where_the_predictor_is_told_to(vit_folder, tmp_path):
    random_predictor(str(vit_folder)).save(tmp_path)
    pictures = np.zeros((1, 32, 32, 3), np.uint8)
    PartPredictor.load(tmp_path, "cpu").predict(pictures)
    with pytest.raises(UserError, match=r"base\.device='nowhere' is not available"):
        PartPredictor.load(tmp_path, "nowhere").predict(pictures)


def test_plain_and_published_points_by_hand():
    features = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    foreground = torch.tensor([[True, False]])
    assert part_points(features, foreground, "plain").tolist() == [[[pytest.approx(0.6), pytest.approx(0.8)], [0, 1]]]
    published = part_points(features, foreground, "published")
    torch.testing.assert_close(published, torch.tensor([[[0.6, 0.8], [-ROOT, -ROOT]]]))


@pytest.mark.parametrize(("side", "deviation", "radius"), [(8, 1, 3), (16, 1, 3), (32, 2**0.5, 4)])
def test_centred_points_against_scipy_s_filter(side, deviation, radius):
    """Standardised over the foreground, then a Gaussian with nothing beyond the foreground's edge."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, side**2, 5)).astype(np.float32)
    foreground = rng.random((2, side**2)) < 0.6
    found = part_points(torch.from_numpy(features), torch.from_numpy(foreground), "centred").numpy()
    for picture, inside, points in zip(features, foreground, found, strict=True):
        unit = picture / np.linalg.norm(picture, axis=1, keepdims=True)
        spread = unit[inside].std(0)
        standard = np.where(inside[:, None], (unit - unit[inside].mean(0)) / (spread + spread.mean()), 0)
        blurred = gaussian_filter(
            standard.reshape(side, side, 5), deviation, mode="constant", radius=radius, axes=(0, 1)
        ).reshape(-1, 5)
        expected = blurred / np.linalg.norm(blurred, axis=1, keepdims=True)
        np.testing.assert_allclose(points[inside], expected[inside], atol=1e-4)


def test_centred_points_forget_what_a_whole_picture_shares():
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(1, 16, 6, generator=generator), dim=-1)
    everything = torch.ones(1, 16, dtype=torch.bool)
    shared = torch.tensor([0.3, 0, 0, -0.2, 0, 0])
    moved = torch.nn.functional.normalize(unit, dim=-1) + shared
    centred = part_points(unit, everything, "centred")
    # Only the length of `moved` is not shared: undo it, and nothing is left of the shift.
    assert torch.nn.functional.cosine_similarity(unit, moved, dim=-1).min() < 0.95
    with_lengths = part_points(moved, everything, "centred")
    assert torch.nn.functional.cosine_similarity(centred, with_lengths, dim=-1).min() > 0.9


@pytest.mark.parametrize("shown", [0, 1])
def test_centred_points_of_an_empty_or_single_patch_foreground_are_finite(shown):
    foreground = torch.zeros(1, 16, dtype=torch.bool)
    foreground[0, :shown] = True
    assert part_points(torch.randn(1, 16, 6), foreground, "centred").isfinite().all()


def test_foreground_is_the_nearer_of_two(predictor):
    assert foreground_of(FEATURES, predictor.scene).tolist() == [[False, True, True, True], [False] * 4]
