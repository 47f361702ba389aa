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

    k-means++ (Arthur & Vassilvitskii 2007) on a random sample seeds `starts` runs of Lloyd's algorithm; all runs
    share each pass over the points, and the one with the highest mean similarity wins. A cluster that empties
    is moved to the sample point that is worst served. Memory: one chunk, the sample, and the centroids.
    Deterministic on one machine. Raises ValueError if there are no points.
    """
    generator = torch_generator(seed, f"k-means {purpose}")
    sample = _sample(chunks, generator)
    clusters = min(clusters, len(sample))
    # (start, cluster, width)
    centroids = torch.stack([_plus_plus(sample, clusters, generator) for _ in range(starts)])
    for _ in range(iterations):
        sums, counts, similarity = _assign(chunks, centroids)
        moved = F.normalize(sums, dim=-1)
        for start, cluster in (counts == 0).nonzero().tolist():
            alive = moved[start].norm(dim=-1) > 0  # those just moved too, so that no two move to one point
            moved[start, cluster] = sample[(sample @ moved[start][alive].T).amax(-1).argmin()]
        settled = torch.allclose(moved, centroids, atol=1e-5)
        centroids = moved
        if settled:
            break
    _, _, similarity = _assign(chunks, centroids)
    # The first of equals: which of two starts that found the same optimum wins must not hang on rounding.
    return centroids[(similarity >= similarity.max() * (1 - 1e-7)).int().argmax()]


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


def _assign(chunks: Chunks, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One pass: per start and cluster the sum and number of its points, and per start the total similarity."""
    starts, clusters, width = centroids.shape
    sums = torch.zeros(starts, clusters, width)
    counts = torch.zeros(starts, clusters)
    similarity = torch.zeros(starts, dtype=torch.float64)
    for chunk in chunks():
        points = F.normalize(chunk.float(), dim=-1)
        scores = (points @ centroids.flatten(0, 1).T).unflatten(-1, (starts, clusters))
        best, nearest = scores.max(-1)  # (point, start)
        similarity += best.double().sum(0)
        for start in range(starts):
            members = F.one_hot(nearest[:, start], clusters).float()
            sums[start] += members.T @ points
            counts[start] += members.sum(0)
    return sums, counts, similarity
