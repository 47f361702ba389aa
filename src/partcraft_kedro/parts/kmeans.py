"""Cosine k-means over points that need not fit into memory."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from partcraft_kedro.randomness import torch_generator

Chunks = Callable[[], Iterable[torch.Tensor]]  # each call goes through all points once, (n, width) a chunk
_SAMPLE = 32_768  # points among which k-means++ chooses


def cosine_kmeans(
    chunks: Chunks, clusters: int, *, starts: int, iterations: int, seed: int, purpose: str
) -> torch.Tensor:
    """Cluster by cosine similarity; returns unit centroids (min(clusters, points), width) float32.

    k-means++ (Arthur & Vassilvitskii 2007) seeds `starts` runs of Lloyd's algorithm on a random sample of the points;
    the one with the highest mean similarity goes on over all points. `iterations` bounds both, and both end when an
    iteration adds less than a millionth to the similarity. A cluster that empties is moved to the sample point that
    is worst served. Memory: one chunk, the sample, and the centroids. Deterministic on one machine.
    Raises ValueError if there are no points.
    """
    generator = torch_generator(seed, f"k-means {purpose}")
    sample = _sample(chunks, generator)
    clusters = min(clusters, len(sample))
    best, highest = None, -torch.inf
    for _ in range(starts):
        centroids, similarity = _lloyd(lambda: [sample], _plus_plus(sample, clusters, generator), sample, iterations)
        # Beyond rounding: which of two starts that found the same optimum wins must not hang on it.
        if best is None or similarity > highest + 1e-7 * abs(highest):
            best, highest = centroids, similarity
    return _lloyd(chunks, best, sample, iterations)[0]


def _lloyd(
    chunks: Chunks, centroids: torch.Tensor, sample: torch.Tensor, iterations: int
) -> tuple[torch.Tensor, float]:
    """Lloyd's algorithm from (cluster, width) centroids; also the total similarity before the last move."""
    before = -torch.inf
    for _ in range(iterations):
        sums, counts, similarity = _assign(chunks, centroids)
        centroids = F.normalize(sums, dim=-1)
        for cluster in (counts == 0).nonzero()[:, 0].tolist():
            alive = centroids[centroids.norm(dim=-1) > 0]  # those just moved too, so that no two move to one point
            centroids[cluster] = sample[(sample @ alive.T).amax(-1).argmin()]
        if similarity - before <= 1e-6 * abs(similarity) and (counts > 0).all():
            break
        before = similarity
    return centroids, similarity


def _sample(chunks: Chunks, generator: torch.Generator) -> torch.Tensor:
    """A uniform sample without replacement: the points with the smallest random keys (Efraimidis & Spirakis)."""
    kept, keys = None, None
    for chunk in chunks():
        if not len(chunk):
            continue
        fresh = torch.rand(len(chunk), generator=generator)
        kept = chunk if kept is None else torch.cat([kept, chunk])
        keys = fresh if keys is None else torch.cat([keys, fresh])
        if len(keys) > _SAMPLE:
            keys, chosen = keys.topk(_SAMPLE, largest=False)
            kept = kept[chosen]
    if kept is None:
        raise ValueError("k-means was given no points")
    return F.normalize(kept.float(), dim=-1)


def _plus_plus(sample: torch.Tensor, clusters: int, generator: torch.Generator) -> torch.Tensor:
    chosen = [int(torch.randint(len(sample), (1,), generator=generator))]
    distance = 1 - sample @ sample[chosen[0]]  # half the squared distance of unit vectors
    while len(chosen) < clusters:
        chances = distance.clamp(min=0) + 1e-12
        chosen.append(int(torch.multinomial(chances, 1, generator=generator)))
        distance = torch.minimum(distance, 1 - sample @ sample[chosen[-1]])
    return sample[chosen]


def _assign(chunks: Chunks, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """One pass: the sum and number of each cluster's points, and the total similarity."""
    clusters, width = centroids.shape
    sums, counts, similarity = torch.zeros(clusters, width), torch.zeros(clusters), 0.0
    for chunk in chunks():
        points = F.normalize(chunk.float(), dim=-1)
        best, nearest = (points @ centroids.T).max(-1)
        similarity += float(best.double().sum())
        members = F.one_hot(nearest, clusters).float()
        sums += members.T @ points
        counts += members.sum(0)
    return sums, counts, similarity
