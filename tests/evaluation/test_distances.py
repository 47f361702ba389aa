import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.evaluation import distances
from partcraft_kedro.evaluation.distances import (
    Embedder,
    compare,
    density_and_coverage,
    dinov2_embedder,
    embed_pictures,
    expected_coverage,
    frechet_distance,
    judge_embedder,
    kernel_distance,
    load_embedded,
    reference_of,
    write_embedded,
)
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.weights import TINY


def features(count, seed, width=6):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((count, width)) @ rng.uniform(-1, 1, (width, width)) + rng.uniform(-1, 1, width)
    ).astype(np.float32)


def test_frechet_distance_is_the_closed_formula():
    real, generated = features(300, 0), features(200, 1)
    x, y = real.astype(np.float64), generated.astype(np.float64)
    of_x, of_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    means = np.square(x.mean(0) - y.mean(0)).sum()
    expected = means + np.trace(of_x + of_y - 2 * sqrtm(of_x @ of_y).real)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_a_shift_is_its_square():
    real = features(300, 0)
    shift = np.array([1, 2, 0, 0, 0, 0], np.float32)
    assert frechet_distance(real, real + shift) == pytest.approx(5, rel=1e-3)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-3)


def unbiased_mmd(x, y):
    """Squared MMD with the kernel (x·y/d + 1)³, the diagonals left out."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()


@pytest.mark.parametrize("counts", [(80, 80), (120, 80), (80, 120)])
def test_kernel_distance_is_the_unbiased_mmd_of_all_features(counts):
    real, generated = features(counts[0], 0), features(counts[1], 1)
    assert kernel_distance(real, generated) == pytest.approx(unbiased_mmd(real, generated), rel=1e-3)


@pytest.mark.parametrize("rows", [1, 7, 20, 1000])
def test_in_blocks_of_rows_the_distances_are_the_same(rows, monkeypatch):
    real, generated = features(40, 0), np.concatenate([features(20, 1), features(40, 0)[:5]])
    expected = kernel_distance(real, generated), density_and_coverage(real, generated)
    monkeypatch.setattr(distances, "_ROWS", rows)
    assert kernel_distance(real, generated) == pytest.approx(expected[0], rel=1e-12)
    assert density_and_coverage(real, generated) == expected[1]
    assert density_and_coverage(real, real) == (1, 1)  # each rim stays outside


def test_no_matrix_of_all_pairs_is_held(monkeypatch):
    """Of 3,000 pictures it would take 72 MB."""
    real, generated = features(3000, 0), features(3000, 1)
    monkeypatch.setattr(distances, "_ROWS", 64)
    for measure in (kernel_distance, density_and_coverage):
        tracemalloc.start()
        measure(real, generated)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10e6


def test_kernel_distance_draws_nothing_from_the_global_random_state():
    before = torch.get_rng_state()
    kernel_distance(features(30, 0), features(20, 1))
    assert torch.equal(torch.get_rng_state(), before)


REAL = np.array([[0.0, 0], [1, 0], [3, 0], [10, 0]])  # their second nearest are 3, 2, 3 and 9 away


def test_density_and_coverage_by_hand():
    """(0, 1) is inside the balls around 0 and 1, and just beyond 3's; (5.9, 0) inside those of 3 and 10."""
    both = np.array([[0, 1.0], [5.9, 0]])
    assert density_and_coverage(REAL, both, neighbours=2) == ((2 + 2) / (2 * 2), 4 / 4)
    twice_and_far = np.array([[0, 1.0], [0, 1], [-90, 0]])
    assert density_and_coverage(REAL, twice_and_far, neighbours=2) == (pytest.approx((2 + 2 + 0) / (2 * 3)), 2 / 4)


def test_a_picture_on_the_rim_of_a_ball_is_outside():
    """Real pictures compared with themselves: each ball holds its own and all but the last of its neighbours."""
    real = features(40, 0)
    assert density_and_coverage(real, real) == (1, 1)


def test_coverage_of_a_perfect_generator_is_as_expected():
    rng = np.random.default_rng(0)
    measured = [density_and_coverage(*(rng.standard_normal((n, 2)) for n in (40, 12)), 3)[1] for _ in range(200)]
    assert np.mean(measured) == pytest.approx(expected_coverage(40, 12, 3), abs=0.02)
    assert expected_coverage(2, 1, 1) == 1 / 2  # which of two is nearer to the first real picture?


def compared(n_real, n, width=6):
    real, generated = features(n_real, 0, width), features(n, 1, width)
    return compare(real, generated, features="some network", reference="test split")


def test_each_measure_says_what_it_was_measured_on():
    results = compared(60, 60)
    real, generated = features(60, 0), features(60, 1)
    density, coverage = density_and_coverage(real, generated)
    values = {
        "frechet": frechet_distance(real, generated),
        "kernel": kernel_distance(real, generated),
        "density": density,
        "coverage": coverage,
    }
    shared = {"n": 60, "n_real": 60, "features": "some network", "reference": "test split", "note": None}
    assert results == {name: {"value": value, **shared} for name, value in values.items()}


@pytest.mark.parametrize(
    ("n_real", "n", "measured"),
    [
        (80, 80, {"frechet", "kernel", "density", "coverage"}),
        (61, 61, {"frechet", "kernel", "density", "coverage"}),
        (60, 80, {"kernel", "density", "coverage"}),
        (80, 60, {"kernel", "density", "coverage"}),
        (50, 50, {"kernel", "density", "coverage"}),
        (49, 80, {"density", "coverage"}),
        (80, 49, {"density", "coverage"}),
        (6, 1, {"density", "coverage"}),
        (5, 80, set()),
        (80, 0, set()),
    ],
)
def test_too_few_pictures_give_a_sentence_and_no_number(n_real, n, measured):
    results = compared(n_real, n, width=60)
    assert {name for name, result in results.items() if result["value"] is not None} == measured
    for name in results.keys() - measured:
        assert results[name]["note"].startswith("needs ")
        assert results[name]["note"].endswith(f"has {n_real} real and {n} generated")


def test_notes_name_the_numbers():
    results = compared(245, 20, width=768)
    assert results["frechet"]["note"] == (
        "needs more than 768 pictures on each side for its 768 features, has 245 real and 20 generated"
    )
    assert results["coverage"]["note"] == (
        f"a perfect generator would reach {expected_coverage(245, 20):.2f} with so few pictures, "
        "has 245 real and 20 generated"
    )
    assert results["coverage"]["value"] is not None
    assert results["density"]["note"] is None


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (35, 128, 128, 3), dtype=np.uint8)


def on_disk(pictures, folder):
    paths = [folder / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def test_the_judge_embeds_pictures_batch_by_batch(pictures, tmp_path):
    judge = Judge.load(TINY / "judge" / "judge.safetensors")
    embedder = judge_embedder(judge)
    assert (embedder.name, embedder.width) == ("judge, 96 numbers", 96)
    found = embed_pictures(embedder, on_disk(pictures, tmp_path), pictures.shape[1])
    np.testing.assert_allclose(found, judge.embed(to_unit(pictures)), atol=1e-5)
    assert embed_pictures(embedder, [], 128).shape == (0, 96)


def test_dinov2_embeds_by_the_mean_over_patches(vit_folder, pictures):
    embedder = dinov2_embedder(str(vit_folder), device="cpu")
    assert (embedder.name, embedder.width) == (f"{vit_folder}, mean over patches, 12 numbers", 12)
    expected = FeatureExtractor(str(vit_folder), device="cpu")(pictures[:3]).mean(1)
    assert torch.equal(embedder(to_unit(pictures[:3])), expected)


def test_embedders_see_pictures_in_0_to_1(tmp_path):
    white = on_disk(np.full((1, 4, 4, 3), 255, np.uint8), tmp_path)
    assert embed_pictures(Embedder("brightest", 3, lambda batch: batch.amax((2, 3))), white, 4).tolist() == [[1, 1, 1]]


def test_features_in_shards_are_those_of_all_pictures(pictures, tmp_path, monkeypatch):
    """Some of them made before, and in two runs of them; the embedder's name goes with them."""
    monkeypatch.setattr("partcraft_kedro.evaluation.distances.SHARD", 32)
    embedder = judge_embedder(Judge.load(TINY / "judge" / "judge.safetensors"))
    paths = on_disk(pictures, tmp_path)
    write_embedded(embedder, paths[32:], 128, tmp_path / "shards", first=32)
    (last,) = (tmp_path / "shards").iterdir()
    stamp = last.stat().st_mtime_ns
    write_embedded(embedder, paths, 128, tmp_path / "shards")
    assert last.stat().st_mtime_ns == stamp
    (tmp_path / "shards/.embedded-0000000.partial-lost.safetensors").write_bytes(b"half")  # of a worker that was lost
    found, name = load_embedded(tmp_path / "shards")
    assert name == "judge, 96 numbers"
    np.testing.assert_array_equal(found, embed_pictures(embedder, paths, 128))


def test_of_very_many_real_pictures_some_are_compared_with(monkeypatch):
    monkeypatch.setattr("partcraft_kedro.evaluation.distances._MOST_REAL", 6)
    paths = pd.Series([f"{i}.png" for i in range(9)], index=range(10, 19))
    every, told = reference_of(paths[:6], seed=1)
    assert every.equals(paths[:6]) and told == "all real pictures"
    some, told = reference_of(paths, seed=1)
    assert told == "6 of 9 real pictures, chosen at random"
    assert len(some) == 6 and some.is_monotonic_increasing and set(some) < set(paths)
    assert some.equals(reference_of(paths, seed=1)[0]) and not some.equals(reference_of(paths, seed=2)[0])
