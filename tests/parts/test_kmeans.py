from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from partcraft_kedro.parts import kmeans
from partcraft_kedro.parts.kmeans import cosine_kmeans

OPTIONS = {"n_init": 4, "max_iter": 50, "seed": 0, "purpose": "test"}


@pytest.fixture
def points():
    """Six directions in ten dimensions, 60 points around each, at lengths from 0.1 to 10."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(10, 6, generator=generator))[0].T
    noisy = directions.repeat(60, 1) + 0.1 * torch.randn(360, 10, generator=generator)
    return noisy * 10 ** (2 * torch.rand(360, 1, generator=generator) - 1)


def assign(points, centroids):
    return (F.normalize(points, dim=-1) @ centroids.T).argmax(-1)


def sorted_rows(centroids):
    return centroids[centroids[:, 0].argsort()]


def test_it_finds_the_partition_that_sklearn_finds_on_the_unit_sphere(points):
    unit = F.normalize(points, dim=-1)
    reference = KMeans(6, n_init=4, random_state=0).fit(unit.numpy())
    centroids = cosine_kmeans(lambda: [points], 6, **OPTIONS)
    assert adjusted_rand_score(reference.labels_, assign(points, centroids)) == 1
    centres = F.normalize(torch.from_numpy(reference.cluster_centers_).float(), dim=-1)
    torch.testing.assert_close(sorted_rows(centroids), sorted_rows(centres), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 7, 359])
def test_the_chunks_do_not_matter(points, monkeypatch, size):
    monkeypatch.setattr(kmeans, "_SEEDED", 200)
    whole = cosine_kmeans(lambda: [points], 6, **OPTIONS)
    chunked = cosine_kmeans(lambda: [points[:0], *points.split(size)], 6, **OPTIONS)
    torch.testing.assert_close(sorted_rows(chunked), sorted_rows(whole), atol=1e-5, rtol=0)


def test_it_is_deterministic_and_follows_its_seed(points):
    few = OPTIONS | {"n_init": 1, "max_iter": 1}
    first = cosine_kmeans(lambda: [points], 6, **few)
    assert torch.equal(cosine_kmeans(lambda: [points], 6, **few), first)
    assert not torch.equal(cosine_kmeans(lambda: [points], 6, **few | {"seed": 1}), first)
    assert not torch.equal(cosine_kmeans(lambda: [points], 6, **few | {"purpose": "other"}), first)


def test_more_starts_never_fit_worse(points):
    """The winner of many starts is the best of them: 9 clusters on 6 directions have many local optima."""

    def similarity(n_init):
        centroids = cosine_kmeans(lambda: [points], 9, **OPTIONS | {"n_init": n_init})
        return (F.normalize(points, dim=-1) @ centroids.T).amax(-1).mean().item()

    scores = [similarity(n_init) for n_init in (1, 2, 4, 8, 16)]
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise(scores))
    assert scores[-1] > scores[0]


def test_centroids_have_unit_length_and_are_no_more_than_the_points(points):
    centroids = cosine_kmeans(lambda: [points[:4].half()], 6, **OPTIONS)
    torch.testing.assert_close(centroids.norm(dim=-1), torch.ones(4))
    assert centroids.dtype == torch.float32
    assert sorted(assign(points[:4], centroids).tolist()) == [0, 1, 2, 3]


def test_an_emptied_cluster_moves_to_the_worst_served_point(monkeypatch):
    """Both centroids start on one of two directions: the second has no points and must find the other direction."""
    points = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 2)
    monkeypatch.setattr(kmeans, "_plus_plus", lambda points, clusters, generator: torch.tensor([[1.0, 0.0]] * 2))
    centroids = cosine_kmeans(lambda: [points], 2, **OPTIONS | {"n_init": 1})
    torch.testing.assert_close(sorted_rows(centroids), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_no_points_is_an_error(points):
    with pytest.raises(ValueError, match="no points"):
        cosine_kmeans(lambda: [points[:0]], 2, **OPTIONS)


def test_the_sample_is_uniform_over_all_chunks(monkeypatch):
    """Each of 1,000 points is in a sample of 100 with probability .1, wherever it stands."""
    monkeypatch.setattr(kmeans, "_SAMPLE", 100)
    points = torch.arange(1.0, 1001.0)[:, None].expand(-1, 2) * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, 500.0])
    drawn = torch.zeros(1000)
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        unit = kmeans._sample(lambda: points.split(70), generator)
        assert len(unit) == 100
        drawn[(500 * unit[:, 0] / unit[:, 1]).round().long() - 1] += 1
    assert drawn.sum() == 400 * 100
    # Binomial of 400 draws: 40 ± 6; means over 100 points ± .6. Five standard deviations.
    assert ((drawn.view(10, 100).mean(1) - 40).abs() < 3).all()


def test_a_sample_finds_what_all_points_show(points, monkeypatch):
    whole = cosine_kmeans(lambda: [points], 6, **OPTIONS)
    monkeypatch.setattr(kmeans, "_SAMPLE", 120)
    sampled = cosine_kmeans(lambda: points.split(50), 6, **OPTIONS)
    assert adjusted_rand_score(assign(points, whole), assign(points, sampled)) == 1
