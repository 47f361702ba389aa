"""Eight clusters of 100,000 points of 96 numbers, beside scikit-learn's k-means on unit vectors."""

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from measure import Result, side_by_side
from partcraft_kedro.parts.kmeans import cosine_kmeans
from subjects.world import World


def measure(_: World, rounds: int) -> tuple[list[Result], dict]:
    points = torch.randn(100_000, 96, generator=torch.Generator().manual_seed(0))
    points += 3 * torch.randn(8, 96, generator=torch.Generator().manual_seed(1))[torch.arange(100_000) % 8]

    def sklearn() -> int:
        KMeans(8, n_init=4, max_iter=50, random_state=0).fit(F.normalize(points, dim=-1).numpy())
        return len(points)

    def ours() -> int:
        cosine_kmeans(lambda: points.split(8192), 8, n_init=4, max_iter=50, seed=0, purpose="benchmark")
        return len(points)

    ways = {"scikit-learn, unit vectors": sklearn, "ours, cosine": ours}
    return side_by_side("k-means", "point", ways, rounds=rounds), {}
