"""Part discovery: three tiers of cosine k-means over the patches of all training pictures.

Nothing here sees a label. Pictures without foreground, or without background, take part with what they show;
no vector ever stands in for a background or an absent part.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F

from partcraft_kedro.parts.kmeans import cosine_kmeans
from partcraft_kedro.parts.predictor import PartPredictor, part_means


def discover_parts(
    features: Iterable[torch.Tensor],
    *,
    parts: int,
    variants: int,
    starts: int,
    iterations: int,
    least_patches: int,
    seed: int,
    feature_model: str,
) -> PartPredictor:
    """Fit a predictor. `features` can be gone through many times, (pictures, patches, width) a step.

    parts: M; variants: K, at most, for each part and the background; starts and iterations: of k-means;
    least_patches: a part smaller than this counts as absent.
    """
    options = {"starts": starts, "iterations": iterations, "seed": seed}
    all_points = lambda: (chunk.flatten(0, 1) for chunk in features)  # noqa: E731
    scene = _background_first(cosine_kmeans(all_points, 2, purpose="scene", **options), features)

    def foreground() -> Iterator[torch.Tensor]:
        for chunk in all_points():
            yield chunk[(F.normalize(chunk, dim=-1) @ scene.T).argmax(-1) == 1]

    part_centroids = cosine_kmeans(foreground, parts, purpose="parts", **options)
    predictor = PartPredictor(scene, part_centroids, [], feature_model=feature_model, least_patches=least_patches)

    means_of_parts: list[list[torch.Tensor]] = [[] for _ in range(parts + 1)]
    for chunk in features:
        means, present = part_means(chunk, predictor.label_maps(chunk), parts + 1, least_patches)
        for m in range(parts + 1):
            means_of_parts[m].append(means[present[:, m], m])
    for m, means in enumerate(means_of_parts):
        points = torch.cat(means)
        if not len(points):  # a part that never reaches least_patches still needs a code for codes to index
            points = scene[:1] if m == 0 else part_centroids[m - 1 : m]
        predictor.variants.append(
            cosine_kmeans(lambda points=points: [points], variants, purpose=f"variants {m}", **options)
        )
    return predictor


def _background_first(scene: torch.Tensor, features: Iterable[torch.Tensor]) -> torch.Tensor:
    """Order the two scene centroids: the background is the one that is more common at the border than in the centre.

    Border: the outermost ring of patches; centre: the middle half, both ways.
    """
    excess = torch.zeros(2)
    for chunk in features:
        if not len(chunk):
            continue
        labels = (F.normalize(chunk, dim=-1) @ scene.T).argmax(-1)
        side = round(labels.shape[1] ** 0.5)
        second = labels.unflatten(1, (side, side)).float()
        quarter = side // 4
        centre = second[:, quarter : side - quarter, quarter : side - quarter].mean()
        ring = torch.cat([second[:, 0], second[:, -1], second[:, 1:-1, 0], second[:, 1:-1, -1]], dim=1).mean()
        excess += torch.stack([centre - ring, ring - centre]) * len(chunk)
    return scene if excess[0] > 0 else scene.flip(0)
