"""Cosine k-means over points that need not fit into memory."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from partcraft_kedro.randomness import torch_generator

Chunks = Callable[[], Iterable[torch.Tensor]]  # each call goes through all points once, (n, width) a chunk
_SAMPLE = 131_072  # points that are clustered, at most
_SEEDED = 32_768  # of these, points that the starts compete on


def cosine_kmeans(
    chunks: Chunks, clusters: int, *, n_init: int, max_iter: int, seed: int, purpose: str
) -> torch.Tensor:
    """Cluster by cosine similarity; returns unit centroids (min(clusters, points), width) float32.

    One pass draws a uniform sample of the points; all further work is on it, in memory. k-means++ (Arthur &
    Vassilvitskii 2007) seeds `n_init` runs of Lloyd's algorithm on a part of the sample, and the one with the highest
    mean similarity goes on over all of it. `max_iter` bounds both, and both end when an iteration adds less than a
    millionth to the similarity. A cluster that empties is moved to the point that is worst served.
    Deterministic on one machine. Raises ValueError if there are no points.
    """
    generator = torch_generator(seed, f"k-means {purpose}")
    points = _sample(chunks, generator)
    clusters = min(clusters, len(points))
    best, highest = None, -torch.inf
    for _ in range(n_init):
        seeds = _plus_plus(points[:_SEEDED], clusters, generator)
        centroids, similarity = _lloyd(points[:_SEEDED], seeds, max_iter)
        # Beyond rounding: which of two starts that found the same optimum wins must not hang on it.
        if best is None or similarity > highest + 1e-7 * abs(highest):
            best, highest = centroids, similarity
    assert best is not None  # there is a start at least
    return _lloyd(points, best, max_iter)[0]


def _sample(chunks: Chunks, generator: torch.Generator) -> torch.Tensor:
    """At most _SAMPLE of the points as unit vectors, uniformly and in random order.

    Those with the smallest random keys (Efraimidis & Spirakis 2006).
    """
    kept: list[torch.Tensor] = []
    keys: list[torch.Tensor] = []
    highest = 1.0  # a key above it can no longer be among the smallest

    def smallest() -> tuple[torch.Tensor, torch.Tensor]:
        of_all = torch.cat(keys)
        order = of_all.argsort()[:_SAMPLE]
        return torch.cat(kept)[order], of_all[order]

    for chunk in chunks():
        fresh = torch.rand(len(chunk), generator=generator)
        entering = fresh < highest
        kept.append(chunk[entering])
        keys.append(fresh[entering])
        if sum(map(len, keys)) > 2 * _SAMPLE:
            points, of_points = smallest()
            kept, keys, highest = [points], [of_points], float(of_points[-1])
    if not sum(map(len, keys)):
        raise ValueError("k-means was given no points")
    return F.normalize(smallest()[0].float(), dim=-1)


def _lloyd(points: torch.Tensor, centroids: torch.Tensor, max_iter: int) -> tuple[torch.Tensor, float]:
    """Lloyd's algorithm from (cluster, width) centroids; also the total similarity before the last move."""
    before = -torch.inf
    for _ in range(max_iter):
        best, nearest = (points @ centroids.T).max(-1)
        similarity = float(best.double().sum())
        members = F.one_hot(nearest, len(centroids)).float()
        centroids = F.normalize(members.T @ points, dim=-1)
        emptied = (members.sum(0) == 0).nonzero()[:, 0].tolist()
        for cluster in emptied:
            alive = centroids[centroids.norm(dim=-1) > 0]  # those just moved too, so that no two move to one point
            centroids[cluster] = points[(points @ alive.T).amax(-1).argmin()]
        if not emptied and similarity - before <= 1e-6 * abs(similarity):
            break
        before = similarity
    return centroids, similarity


def _plus_plus(sample: torch.Tensor, clusters: int, generator: torch.Generator) -> torch.Tensor:
    chosen = [int(torch.randint(len(sample), (1,), generator=generator))]
    distance = 1 - sample @ sample[chosen[0]]  # half the squared distance of unit vectors
    while len(chosen) < clusters:
        chances = distance.clamp(min=0) + 1e-12
        chosen.append(int(torch.multinomial(chances, 1, generator=generator)))
        distance = torch.minimum(distance, 1 - sample @ sample[chosen[-1]])
    return sample[chosen]
