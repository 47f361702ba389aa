"""Part discovery: three tiers of cosine k-means over the patches of all training pictures.

Nothing here sees a label. Pictures without foreground, or without background, take part with what they show.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F

from partcraft_kedro.errors import UserError
from partcraft_kedro.parts.kmeans import cosine_kmeans
from partcraft_kedro.parts.predictor import PartPredictor, foreground_of, part_means, part_points, trim, variant_points
from partcraft_kedro.randomness import numpy_generator

_PUBLISHED_PICTURES = 100  # that the authors' code fits tiers 1 and 2 on
_NEIGHBOURS = 5  # of a picture, that tell whether two variants mix
_ROWS = 512  # of pictures that are compared with all at once
_MIXED = 0.1  # of the links that a group divided at random has: two variants that have more are one
_SHOWN_IN = 0.9  # of all pictures: what shows in as many is no background, wherever it lies


def fit_part_predictor(
    features: Iterable[torch.Tensor],
    *,
    discovery: str,
    parts: int,
    variants: int,
    n_init: int,
    max_iter: int,
    merge: bool,
    min_patches: int,
    min_pictures: int,
    seed: int,
    extractor: dict,
    changes: torch.Tensor | None = None,
) -> PartPredictor:
    """Fit a predictor. `features` can be gone through many times, (pictures, patches, width) a step.

    discovery: `plain`, `centred`, `trimmed`, `whitened` or `published`, see `part_points`; parts: M, at most;
    variants: K, at most, for each part and the background; n_init and max_iter: of k-means; merge: whether variants
    that no gap separates become one, see `_merged`; min_patches: a part smaller than this counts as absent;
    min_pictures: a variant of fewer is given up; extractor: what `FeatureExtractor` takes to make these features;
    changes: for `whitened`, what a crop changes of them, see `whitening_of`.
    Raises UserError if no patch of any picture is foreground, as of pictures of one colour.
    """
    options = {"n_init": n_init, "max_iter": max_iter, "seed": seed}
    fitted = _some_pictures(features, _PUBLISHED_PICTURES, seed) if discovery == "published" else features
    scene = cosine_kmeans(lambda: (chunk.flatten(0, 1) for chunk in fitted), 2, purpose="scene", **options)
    scene = _background_first(scene, fitted)

    def points(trial: torch.Tensor | None, whitening: torch.Tensor | None) -> Iterator[torch.Tensor]:
        for chunk in fitted:
            foreground = trim(chunk, foreground_of(chunk, scene), trial)
            of_chunk = part_points(chunk, foreground, discovery, whitening)
            yield of_chunk.flatten(0, 1) if discovery == "published" else of_chunk[foreground]

    if not any(foreground_of(chunk, scene).any() for chunk in fitted):
        raise UserError("The training pictures show nothing but background: parts are found in pictures of something.")
    trial, whitening = None, None if changes is None else whitening_of(changes)
    if discovery in ("trimmed", "whitened"):  # whitened, a trial tells background less well
        trial = cosine_kmeans(lambda: points(None, None), parts + 1, purpose="trial", **options)
        trial = _outskirts_first(trial, fitted, scene, min_patches)
    if discovery == "published":  # one cluster more, which the constant background takes
        part_centroids = cosine_kmeans(lambda: points(None, None), parts + 1, purpose="parts", **options)
        constant = part_centroids.sum(-1).argmin()
        part_centroids = part_centroids[torch.arange(len(part_centroids)) != constant]
    else:
        part_centroids = cosine_kmeans(lambda: points(trial, whitening), parts, purpose="parts", **options)
    parts = len(part_centroids)  # fewer than asked for where there are fewer patches
    predictor = PartPredictor(
        scene,
        part_centroids,
        [],
        trial=trial,
        whitening=whitening,
        discovery=discovery,
        features=extractor,
        min_patches=min_patches,
    )

    means_of_parts: list[list[torch.Tensor]] = [[] for _ in range(parts + 1)]
    for chunk in features:
        means, present = part_means(chunk, predictor.label_maps(chunk), parts + 1, min_patches)
        for m in range(parts + 1):
            means_of_parts[m].append(means[present[:, m], m])

    def variants_of(m: int, means: torch.Tensor) -> torch.Tensor:
        if not len(means):  # a part that never reaches min_patches still needs a code for codes to index
            means = scene[:1] if m == 0 else part_centroids[m - 1 : m]
        points = variant_points(means, whitening)
        found = cosine_kmeans(lambda: [points], variants, purpose=f"variants {m}", **options)
        if merge:
            found = _merged(found, points)
        return _unwhitened(_without_rare(found, points, min_pictures), whitening)

    predictor.variants.extend(variants_of(m, torch.cat(of_part)) for m, of_part in enumerate(means_of_parts))
    return predictor


def whitening_of(changes: torch.Tensor) -> torch.Tensor:
    """What makes light of directions that a crop changes: (½ C + ½ I)^-½ of the changes' second moment, (width, width),
    scaled so that its mean variance is 1.

    Mixed with the identity, since a direction that crops never change may be one that hardly varies at all.
    """
    scale = changes.diagonal().mean().clamp(min=1e-12)
    variances, directions = torch.linalg.eigh((changes.double() / scale + torch.eye(len(changes))) / 2)
    return ((directions * variances**-0.5) @ directions.T).float()


def _unwhitened(points: torch.Tensor, whitening: torch.Tensor | None) -> torch.Tensor:
    """The inverse of `variant_points`: centroids are kept as features, which all of the pipelines can compare."""
    if whitening is None:
        return points
    return F.normalize(torch.linalg.solve(whitening.double(), points.double(), left=False), dim=-1).float()


def _some_pictures(features: Iterable[torch.Tensor], count: int, seed: int) -> list[torch.Tensor]:
    """The features of `count` random pictures, or of all if there are fewer."""
    total = sum(len(chunk) for chunk in features)
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[numpy_generator(seed, "published pictures").permutation(total)[:count]] = True
    picked, start = [], 0
    for chunk in features:
        picked.append(chunk[chosen[start : start + len(chunk)]])
        start += len(chunk)
    return picked


def _background_first(scene: torch.Tensor, features: Iterable[torch.Tensor]) -> torch.Tensor:
    """Order the two scene centroids: the background is the one that is more common at the border than in the centre.

    Border: the outermost ring of patches; centre: the middle half, both ways.
    """
    excess = torch.zeros(2)
    for chunk in features:
        if not len(chunk):
            continue
        second = foreground_of(chunk, scene)
        side = round(second.shape[1] ** 0.5)
        second = second.unflatten(1, (side, side)).float()
        quarter = side // 4
        centre = second[:, quarter : side - quarter, quarter : side - quarter].mean()
        ring = torch.cat([second[:, 0], second[:, -1], second[:, 1:-1, 0], second[:, 1:-1, -1]], dim=1).mean()
        excess += torch.stack([centre - ring, ring - centre]) * len(chunk)
    return scene if excess[0] > 0 else scene.flip(0)


def _outskirts_first(
    trial: torch.Tensor, features: Iterable[torch.Tensor], scene: torch.Tensor, min_patches: int
) -> torch.Tensor | None:
    """Order the centroids of a trial fit so that the one which is background comes first; None if none of them is.

    Three signs must agree: it has the largest share of its patches in the outermost ring; they are nearer to the
    scene's background than any other's; and fewer than nine of ten pictures show it, which takes two patches of 16×16,
    or as large a share of a finer grid. Where an animal fills the frame, its ears may lie at the border, or its legs be
    like the ground.
    """
    patches, at_border, likeness, shown = torch.zeros(4, len(trial))
    pictures = 0
    for chunk in features:
        foreground = foreground_of(chunk, scene)
        nearest = (part_points(chunk, foreground, "trimmed") @ trial.T).argmax(-1)
        members = F.one_hot(nearest, len(trial)).float() * foreground[..., None]  # (n, patch, cluster)
        side = round(members.shape[1] ** 0.5)
        of_chunk = members.sum((0, 1))
        patches += of_chunk
        at_border += of_chunk - members.unflatten(1, (side, side))[:, 1:-1, 1:-1].sum((0, 1, 2))
        likeness += torch.einsum("npk,np->k", members, F.normalize(chunk, dim=-1) @ (scene[0] - scene[1]))
        shown += (members.sum(1) >= max(min_patches, side**2 / 128)).sum(0)
        pictures += len(chunk)
    first = int((at_border / patches).nan_to_num().argmax())
    likest = int((likeness / patches).nan_to_num(-torch.inf).argmax())
    if first != likest or patches[first] == patches.sum() or shown[first] >= _SHOWN_IN * pictures:
        return None
    return torch.cat([trial[first:], trial[:first]])


def _merged(variants: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Make one of two variants, (K, width), that no gap between the unit points, (pictures, width), separates, until
    all are apart; returns unit centroids.

    How much two mix: how often pictures of one have pictures of the other among their nearest (Schilling 1986, Henze
    1988), beside how often they would if one group had been divided at random. A picture asks no more neighbours than
    it could have in its own variant, so that a small one which lies apart stays. Those that mix most become one first.
    """
    own = (points @ variants.T).argmax(-1)
    nearest = _nearest(points)
    while True:
        counts = own.bincount(minlength=len(variants)).float()
        asks = (counts - 1).clamp(0, nearest.shape[1])
        asked = (torch.arange(nearest.shape[1]) < asks[own, None]).float()
        links = torch.zeros(len(variants), len(variants))
        links.index_put_((own[:, None].expand_as(nearest), own[nearest]), asked, accumulate=True)
        divided = (asks[:, None] + asks) * counts[:, None] * counts / (counts[:, None] + counts)
        mixing = ((links + links.T) / divided).nan_to_num(0).triu(1)
        if mixing.max() <= _MIXED:
            break
        first, second = divmod(int(mixing.argmax()), len(variants))
        own[own == second] = first
    members = F.one_hot(own, len(variants)).float()
    return F.normalize(members[:, members.sum(0) > 0].T @ points, dim=-1)


def _nearest(points: torch.Tensor) -> torch.Tensor:
    """The nearest other points of each, (n, min(_NEIGHBOURS, n - 1)), nearest first."""
    found = []
    for rows in torch.arange(len(points)).split(_ROWS):
        likeness = points[rows] @ points.T
        likeness[torch.arange(len(rows)), rows] = -torch.inf
        found.append(likeness.topk(min(_NEIGHBOURS, len(points) - 1)).indices)
    return torch.cat(found)


def _without_rare(variants: torch.Tensor, means: torch.Tensor, min_pictures: int) -> torch.Tensor:
    """Give up the rarest variant until each has `min_pictures` of the unit means, (pictures, width); one stays."""
    likeness = means @ variants.T
    kept = torch.ones(len(variants), dtype=torch.bool)
    while kept.sum() > 1:
        counts = likeness.where(kept, -torch.inf).argmax(-1).bincount(minlength=len(variants))
        rarest = int(counts.where(kept, len(means) + 1).argmin())
        if counts[rarest] >= min_pictures:
            break
        kept[rarest] = False
    return variants[kept]
