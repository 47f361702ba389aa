import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from partcraft_kedro.parts.discovery import _merged, _without_rare, fit_part_predictor, whitening_of
from partcraft_kedro.parts.predictor import ABSENT, part_means
from partcraft_kedro.randomness import numpy_generator, torch_generator

OPTIONS = {
    "discovery": "plain",
    "parts": 3,
    "variants": 3,
    "n_init": 4,
    "max_iter": 50,
    "merge": False,
    "min_patches": 2,
    "min_pictures": 1,
    "seed": 0,
}


def discover(chunks, changes=None, **changed):
    return fit_part_predictor(chunks, changes=changes, **OPTIONS | changed, extractor={"model": "tiny"})


def predict(predictor, features):
    labels = predictor.label_maps(features)
    return labels, predictor.codes_of(features, labels)[0]


def assert_recovers(predictor, planted):
    """The planted partition up to the parts' and the variants' names; the background is not renamed."""
    labels, codes = predict(predictor, planted.features)
    assert np.array_equal(labels == 0, planted.labels == 0)
    assert adjusted_rand_score(labels.ravel(), planted.labels.ravel()) == 1
    for m in range(1 + 3):
        (name,) = np.unique(labels[planted.labels == m])
        shown = planted.codes[:, m] != ABSENT
        assert np.array_equal(codes[:, name] != ABSENT, shown)
        assert adjusted_rand_score(codes[shown, name], planted.codes[shown, m]) == 1


def test_the_planted_scene_parts_and_variants_are_recovered(plant):
    planted = plant()
    predictor = discover([planted.features])
    assert predictor.part_count == predictor.variant_count == 3
    assert_recovers(predictor, planted)
    assert_recovers(predictor, plant(pictures=8, seed=1))


@pytest.mark.parametrize("seed", range(4))
def test_the_background_is_what_lies_at_the_border_even_if_smaller(plant, seed):
    planted = plant(pictures=12, seed=seed)
    assert (planted.labels == 0).mean() < 0.5
    labels, _ = predict(discover([planted.features], seed=seed), planted.features)
    assert np.array_equal(labels == 0, planted.labels == 0)


@pytest.mark.parametrize("size", [5, 47])
def test_the_chunks_do_not_matter(plant, size):
    planted = plant()
    assert_recovers(discover(planted.features.split(size)), planted)


def test_a_shard_without_a_chosen_picture_changes_nothing(plant):
    planted = plant()
    assert_recovers(discover([planted.features, planted.features[:0]]), planted)


def test_pictures_without_foreground_background_or_a_part_take_part_with_what_they_show(plant):
    def change(labels):
        labels[0] = 0
        labels[1][labels[1] == 0] = 1
        labels[2][labels[2] == 3] = 0

    planted = plant(change=change)
    assert (planted.codes[:3] == ABSENT).tolist() == [
        [False, True, True, True],
        [True, False, False, False],
        [False, False, False, True],
    ]
    assert_recovers(discover([planted.features]), planted)


def test_a_part_smaller_than_the_least_counts_as_absent(plant):
    """Three patches of part 1 in picture 0: a part from 3 patches on, none from 4 on."""

    def change(labels):
        first = np.argwhere(labels[0] == 1)[3:]
        labels[0][tuple(first.T)] = 2

    planted = plant(change=change)
    for least, missing in ((3, 0), (4, 1)):
        _, codes = predict(discover([planted.features], min_patches=least), planted.features)
        assert (codes[0] == ABSENT).sum() == missing
        assert (codes[1:] != ABSENT).all()


def test_a_part_that_no_picture_shows_enough_of_still_gets_a_centroid(plant):
    planted = plant()
    predictor = discover([planted.features], min_patches=13)  # each part has 12 patches, the background 28
    assert [len(variants) for variants in predictor.variants] == [3, 1, 1, 1]
    _, codes = predict(predictor, planted.features)
    assert (codes[:, 1:] == ABSENT).all()
    assert (codes[:, 0] != ABSENT).all()
    torch.testing.assert_close(torch.cat(predictor.variants).norm(dim=-1), torch.ones(6))


@pytest.mark.parametrize("discovery", ["plain", "published"])
def test_both_recipes_find_parts_that_are_far_apart(plant, discovery):
    assert_recovers(discover([plant().features], discovery=discovery), plant(pictures=8, seed=1))


def test_the_published_recipe_fits_parts_on_a_hundred_pictures_whatever_the_chunks(plant):
    planted = plant(pictures=150)
    whole, split = (discover(c, discovery="published") for c in ([planted.features], planted.features.split(40)))
    torch.testing.assert_close(split.parts, whole.parts)
    hundred = numpy_generator(OPTIONS["seed"], "published pictures").permutation(150)[:100]
    rest = np.setdiff1d(np.arange(150), hundred)
    changed = planted.features.clone()
    changed[rest] = changed[rest].flip(-1)
    torch.testing.assert_close(discover([changed], discovery="published").parts, whole.parts)


def test_centring_finds_parts_in_species_that_differ_more_than_their_parts(plant):
    """Each picture's foreground is moved in a direction of its own species, further than parts are apart."""
    planted = plant(pictures=40)
    species = torch.arange(40) % 4
    moved = planted.features.clone()
    inside = torch.from_numpy(planted.labels > 0).flatten(1)
    shift = torch.nn.functional.one_hot(species, 4).float()[:, None].expand(-1, 64, -1) * inside[..., None]
    moved = torch.cat([moved, 1.5 * shift], -1)
    score = lambda predictor: adjusted_rand_score(  # noqa: E731
        planted.labels[planted.labels > 0], predictor.label_maps(moved)[planted.labels > 0]
    )
    assert score(discover([moved], discovery="plain", n_init=1)) < 0.5
    assert score(discover([moved], discovery="centred", n_init=1)) > 0.6


def with_perches(planted, pictures, background=0.5):
    """In some pictures the bottom row is foreground too, a little like background, of a direction that no part has."""
    features = torch.cat([planted.features, torch.zeros(*planted.features.shape[:2], 1)], -1).unflatten(1, (8, 8))
    features[:pictures, -1] = 0
    features[:pictures, -1, :, 0] = background
    features[:pictures, -1, :, 1] = 2  # the scene's direction of foreground; the one before is the background's
    features[:pictures, -1, :, -1] = 2
    return features.flatten(1, 2)


def test_trimmed_a_perch_that_some_pictures_show_is_background(plant):
    planted = plant(pictures=40)
    features = with_perches(planted, 24)
    assert (discover([features], discovery="centred").label_maps(features)[:24, -1] > 0).all()
    labels = discover([features], discovery="trimmed").label_maps(features)
    assert (labels[:24, -1] == 0).all()
    assert (labels[planted.labels > 0] > 0).mean() > 0.9
    again = discover(features.split(7), discovery="trimmed").label_maps(features)
    assert ((labels > 0) == (again > 0)).mean() > 0.99


@pytest.mark.parametrize(("pictures", "background"), [(38, 0.5), (24, -1.5)])
def test_trimmed_what_nearly_all_pictures_show_or_is_least_like_background_stays_a_part(plant, pictures, background):
    features = with_perches(plant(pictures=40), pictures, background)
    predictor = discover([features], discovery="trimmed")
    assert predictor.trial is None
    centred = discover([features], discovery="centred")
    assert np.array_equal(predictor.label_maps(features), centred.label_maps(features))


def test_trimmed_a_few_patches_of_a_fine_grid_show_no_perch(plant):
    """Each patch cut in sixteen; of those that pictures without a perch have at the bottom, four are like one."""
    features = with_perches(plant(pictures=40), 24).unflatten(1, (8, 8)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    features[24:, -2:, :2] = features[0, -1, 0]
    labels = discover([features.flatten(1, 2)], discovery="trimmed").label_maps(features.flatten(1, 2))
    assert (labels[:24, -4:] == 0).mean() > 0.9


def test_whitening_by_hand():
    """Variances of 3 along the diagonal and 1 across it are 3/2 and 1/2 of their mean; with 1, by half, 5/4 and 3/4."""
    along, across = np.array([1, 1]) / 2**0.5, np.array([1, -1]) / 2**0.5
    expected = np.outer(along, along) / 1.25**0.5 + np.outer(across, across) / 0.75**0.5
    for size in (1, 100):  # of features: nothing hangs on it
        found = whitening_of(size * torch.tensor([[2.0, 1.0], [1.0, 2.0]])).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(whitening_of(torch.zeros(2, 2)), 2**0.5 * np.eye(2), atol=1e-6)  # no change at all


def test_whitening_finds_parts_where_crops_change_more_than_parts_differ_in(plant):
    """In one direction patches vary within every picture by more than parts are apart, and so do crops of them. It lies
    along no axis: what does is standardised away."""
    planted = plant(pictures=40)
    rng = np.random.default_rng(0)
    noise = 1.3 * rng.choice([-1.0, 1.0], (40, 2, 2)).repeat(4, 1).repeat(4, 2)  # wider than the blur
    features = torch.cat([planted.features, torch.from_numpy(noise).float().flatten(1)[..., None]], -1)
    turned = torch.linalg.qr(
        torch.randn(features.shape[-1], features.shape[-1], generator=torch_generator(0, "turn"))
    ).Q
    features = features @ turned
    changes = 0.01 * torch.eye(len(turned)) + torch.outer(turned[-1], turned[-1])
    inside = planted.labels > 0

    def agreement(predictor):
        return adjusted_rand_score(planted.labels[inside], predictor.label_maps(features)[inside])

    trimmed = agreement(discover([features], discovery="trimmed"))
    whitened = discover([features], changes, discovery="whitened")
    assert trimmed < 0.5
    assert agreement(whitened) > 0.95
    torch.testing.assert_close(whitened.whitening, whitening_of(changes))
    again = discover(features.split(7), changes, discovery="whitened").label_maps(features)
    assert adjusted_rand_score(again[inside], whitened.label_maps(features)[inside]) > 0.95


def test_whitening_finds_variants_where_crops_change_more_than_variants_differ_in(plant):
    """In one direction whole pictures vary by more than variants are apart, and so do crops: parts do not care."""
    planted = plant()
    shift = torch.from_numpy(np.random.default_rng(0).choice([-0.8, 0.8], 48)).float()
    features = torch.cat([planted.features, shift[:, None, None].expand(-1, planted.features.shape[1], -1)], -1)
    changes = torch.eye(features.shape[-1]) * 0.01
    changes[1, 1] = changes[-1, -1] = 1  # and in the one of all foreground

    def agreement(predictor):
        labels, codes = predict(predictor, features)
        assert adjusted_rand_score(labels.ravel(), planted.labels.ravel()) > 0.9
        matched = [np.bincount(labels[planted.labels == m]).argmax() for m in (1, 2, 3)]
        return np.mean([adjusted_rand_score(planted.codes[:, m], codes[:, name]) for m, name in enumerate(matched, 1)])

    whitened = discover([features], changes, discovery="whitened")
    assert agreement(discover([features], discovery="trimmed")) < 0.5
    assert agreement(whitened) > 0.95
    # Centroids are features all the same: the mean of those pictures of a part that have the code.
    labels, codes = predict(whitened, features)
    means, _ = part_means(features, labels, 4, 2)
    for m in range(1, 4):
        for number, centroid in enumerate(whitened.variants[m]):
            own = torch.nn.functional.normalize(means[codes[:, m] == number, m], dim=-1).mean(0)
            assert torch.cosine_similarity(own, centroid, dim=0) > 0.99


def test_whitened_background_is_trimmed_as_by_trimmed(plant):
    features = with_perches(plant(pictures=40), 24)
    trimmed = discover([features], discovery="trimmed")
    mixed = torch.randn(features.shape[-1], features.shape[-1], generator=torch_generator(0, "mixed"))
    whitened = discover([features], mixed.T @ mixed, discovery="whitened")
    torch.testing.assert_close(whitened.trial, trimmed.trial)
    assert np.array_equal(whitened.label_maps(features) > 0, trimmed.label_maps(features) > 0)
    assert not torch.allclose(whitened.parts, trimmed.parts, atol=0.1)


def on_circle(*degrees):
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_variants_without_a_gap_between_them_become_one():
    arc, far = torch.arange(0.0, 30).tolist(), torch.arange(80.0, 100).tolist()
    points = on_circle(*arc, *far)
    merged = _merged(on_circle(5, 15, 25, 85, 95), points)
    assert torch.allclose(merged, on_circle(14.5, 89.5), atol=1e-6)
    apart = on_circle(14.5, 89.5)
    assert torch.allclose(_merged(apart, points), apart, atol=1e-6)


def test_a_small_variant_that_lies_apart_stays_and_a_picture_alone_among_others_does_not():
    points = on_circle(*torch.arange(0.0, 30).tolist(), 88, 90, 92)
    assert torch.allclose(_merged(on_circle(15, 90), points), on_circle(14.5, 90), atol=1e-6)
    single = torch.cat([points, on_circle(14.5)])
    assert torch.allclose(_merged(on_circle(7, 14.5, 22, 90), single), on_circle(14.5, 90), atol=1e-6)


@pytest.mark.parametrize(("gap", "left"), [(3.2, 2), (2.9, 1)])
def test_how_far_variants_mix_by_hand(gap, left):
    """Two rows of ten, so five neighbours each, and (5 + 5) 10·10/20 = 50 links if they were divided at random.

    With the wider gap the last of a row has one neighbour beyond it: 2 of 50, less than a tenth. With the narrower one
    it has two, and the last but one has one: 6 of 50.
    """
    points = on_circle(*torch.arange(0.0, 10).tolist(), *(9 + gap + torch.arange(10.0)).tolist())
    assert len(_merged(on_circle(4.5, 13.5 + gap), points)) == left


def test_merged_each_part_has_as_many_variants_as_were_planted(plant):
    planted = plant()
    predictor = discover([planted.features], variants=12, merge=True, min_pictures=4)
    assert [len(variants) for variants in predictor.variants] == [3] * 4
    assert_recovers(predictor, planted)
    assert min(map(len, discover([planted.features], variants=12, min_pictures=4).variants)) > 3


def test_a_variant_of_too_few_pictures_is_given_up_and_these_go_to_the_next_nearest():
    variants = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.8, 0.6]])
    means = variants[[0, 0, 0, 0, 1, 1, 2]]
    assert _without_rare(variants, means, 1).tolist() == variants.tolist()
    for least in (2, 3):  # the third's picture makes three of the second's two
        assert _without_rare(variants, means, least).tolist() == variants[:2].tolist()
    assert _without_rare(variants, means, 4).tolist() == variants[:1].tolist()
    assert len(_without_rare(variants, means, 8)) == 1


def test_a_fitted_variant_has_as_many_pictures_as_asked_for(plant):
    planted = plant()
    for least, most in ((1, 12), (4, 11)):
        predictor = discover([planted.features], variants=12, min_pictures=least)
        _, codes = predict(predictor, planted.features)
        for m, variants in enumerate(predictor.variants):
            assert np.bincount(codes[:, m], minlength=len(variants)).min() >= least
            assert len(variants) <= most
