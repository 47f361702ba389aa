"""From features to parts: label maps and codes, with no need of the training data."""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from partcraft_kedro.errors import UserError

if TYPE_CHECKING:
    from partcraft_kedro.features.extractor import FeatureExtractor

ABSENT = -1  # the code of a part that a picture does not show


class PartPredictor:
    """The three tiers of centroids, and the features they were fitted on.

    scene: (2, width), background first; parts: (M, width); variants: M+1 tensors (K_m, width), background first;
    trial: (n, width) that `trim` takes, or None;
    whitening: (width, width) that `part_points` and `variant_points` take, or None;
    discovery: what tier 2 compares, see `part_points`; features: what `FeatureExtractor` takes;
    min_patches: a smaller part counts as absent; device: where the extractor computes.
    All centroids have unit length: every comparison is a cosine.
    """

    def __init__(
        self,
        scene: torch.Tensor,
        parts: torch.Tensor,
        variants: list[torch.Tensor],
        *,
        trial: torch.Tensor | None = None,
        whitening: torch.Tensor | None = None,
        discovery: str,
        features: dict,
        min_patches: int,
        device: str = "auto",
    ):
        self.scene = scene
        self.trial = trial
        self.whitening = whitening
        self.parts = parts
        self.variants = variants
        self.discovery = discovery
        self.features = features
        self.min_patches = min_patches
        self.device = device

    @property
    def part_count(self) -> int:
        """M: the parts, without the background."""
        return len(self.parts)

    @property
    def variant_count(self) -> int:
        """K: the largest number of variants of any part."""
        return max(len(variants) for variants in self.variants)

    @cached_property
    def fingerprint(self) -> str:
        """Of the centroids: predictors of other ones speak of other parts."""
        centroids = [self.scene, self.parts, *self.variants]
        return hashlib.sha256(b"".join(of_tier.numpy().tobytes() for of_tier in centroids)).hexdigest()[:16]

    @cached_property
    def _extractor(self) -> "FeatureExtractor":
        from partcraft_kedro.features.extractor import FeatureExtractor

        extractor = FeatureExtractor(**self.features, device=self.device)
        if extractor.width != (width := self.parts.shape[-1]):
            raise UserError(
                f"features.model={extractor.model!r} gives features of {extractor.width} numbers, and the part "
                f"predictor was made for {width}: run the features and parts stages again."
            )
        return extractor

    def label_maps(self, features: torch.Tensor) -> np.ndarray:
        """Tiers 1 and 2: (n, patches, width) → (n, grid, grid) uint8, 0 the background, 1..M the parts."""
        foreground = trim(features, foreground_of(features, self.scene), self.trial)
        points = part_points(features, foreground, self.discovery, self.whitening)
        labels = torch.where(foreground, (points @ self.parts.T).argmax(-1) + 1, 0)
        side = round(labels.shape[1] ** 0.5)
        return labels.unflatten(1, (side, side)).to(torch.uint8).numpy()

    def codes_of(self, features: torch.Tensor, label_maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tier 3: the variant of each part's mean feature, (n, M+1) int64, and the cosine of the two as tier 3 compares
        them, (n, M+1) float32.

        ABSENT and 0 where a part does not show.
        """
        means, present = part_means(features, label_maps, self.part_count + 1, self.min_patches)
        points = variant_points(means, self.whitening)
        codes, cosines = torch.full(present.shape, ABSENT), torch.zeros(present.shape)
        for m, variants in enumerate(self.variants):
            cosine, nearest = (points[:, m] @ variant_points(variants, self.whitening).T).max(-1)
            codes[:, m] = torch.where(present[:, m], nearest, ABSENT)
            cosines[:, m] = torch.where(present[:, m], cosine, 0.0)
        return codes.numpy(), cosines.numpy()

    def likeness(self, part: int) -> torch.Tensor:
        """How alike the variants of a part are, (K, K): their centroids' cosines as tier 3 compares them."""
        points = variant_points(self.variants[part], self.whitening)
        return points @ points.T

    def segment(self, images: np.ndarray | torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Label maps (n, grid, grid), codes (n, M+1) and their cosines (n, M+1) of pictures, in one pass.

        images: (n, h, w, 3) uint8, or (n, 3, h, w) float in 0..1.
        """
        features = torch.cat([self._extractor(batch) for batch in _batches(images)])
        label_maps = self.label_maps(features)
        return label_maps, *self.codes_of(features, label_maps)

    def predict(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """`part_predictor.predict` of the paper's algorithms: pictures → codes (n, M+1)."""
        return self.segment(images)[1]

    def masks(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """Pictures → one binary mask a part, (n, M+1, grid, grid) bool."""
        return masks_of(self.segment(images)[0], self.part_count)

    def get_centroids(self, codes: np.ndarray) -> np.ndarray:
        """`part_predictor.get_centroids`: codes (n, M+1) → centroids (n, M+1, width); zeros for absent parts."""
        table = torch.zeros(len(self.variants), self.variant_count, self.parts.shape[-1])
        for m, variants in enumerate(self.variants):
            table[m, : len(variants)] = variants
        chosen = table[torch.arange(codes.shape[1]), torch.as_tensor(codes).clamp(min=0)]
        return chosen.where(torch.as_tensor(codes)[..., None] != ABSENT, 0.0).numpy()

    def save(self, folder: Path) -> None:
        """Write `centroids.safetensors` and `part_predictor.json`."""
        tensors = {f"variants.{m}": variants for m, variants in enumerate(self.variants)}
        tensors |= {"scene": self.scene, "parts": self.parts}
        if self.trial is not None:
            tensors["trial"] = self.trial
        if self.whitening is not None:
            tensors["whitening"] = self.whitening
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "centroids.safetensors")
        settings = {
            "discovery": self.discovery,
            "features": self.features,
            "min_patches": self.min_patches,
            "parts": self.part_count,
            "variants": [len(variants) for variants in self.variants],
        }
        (folder / "part_predictor.json").write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "auto", model: str | None = None) -> "PartPredictor":
        """model: the extractor's, where the folder names none: one that came from elsewhere.

        Raises UserError if the folder does not hold a whole predictor.
        """
        try:
            settings = json.loads((folder / "part_predictor.json").read_text())
            tensors = load_file(folder / "centroids.safetensors")
            scene, parts = tensors.pop("scene"), tensors.pop("parts")
            trial = tensors.pop("trial", None)
            whitening = tensors.pop("whitening") if settings["discovery"] == "whitened" else None
            variants = [tensors.pop(f"variants.{m}") for m in range(settings["parts"] + 1)]
            if tensors:
                raise ValueError(f"{min(tensors)} is left over")
            return cls(
                scene,
                parts,
                variants,
                trial=trial,
                whitening=whitening,
                discovery=settings["discovery"],
                features=settings["features"] | {"model": settings["features"]["model"] or model},
                min_patches=settings["min_patches"],
                device=device,
            )
        except Exception as error:
            raise UserError(
                f"{folder} does not hold a whole part predictor ({error}): run the parts stage again."
            ) from error


def foreground_of(features: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """Tier 1: (n, patches, width) → (n, patches) bool, by the nearer of two centroids, background first."""
    return (F.normalize(features.float(), dim=-1) @ scene.T).argmax(-1) == 1


def trim(features: torch.Tensor, foreground: torch.Tensor, trial: torch.Tensor | None) -> torch.Tensor:
    """The foreground, (n, patches) bool, without the patches that are nearest to the first centroid of a trial fit of
    parts on it, such as perches; unchanged without one."""
    if trial is None:
        return foreground
    return foreground & ((part_points(features, foreground, "trimmed") @ trial.T).argmax(-1) != 0)


def part_points(
    features: torch.Tensor, foreground: torch.Tensor, discovery: str, whitening: torch.Tensor | None = None
) -> torch.Tensor:
    """What tier 2 compares: (n, patches, width) features and (n, patches) foreground → unit vectors.

    discovery, one of
    `plain`: the features.
    `centred`: the features standardised over the picture's foreground, then blurred within it. The first takes away
    what the whole animal shares, such as its species, and leaves what differs between its parts; the second uses that
    parts are connected. docs/discovery.md measures both.
    `trimmed`: as `centred`, on a foreground from which `trim` has taken what is background after all.
    `whitened`: as `trimmed`, after a linear map, `whitening`, (width, width), that makes light of what a crop changes.
    `published`: the authors' recipe, which replaces the background's features by a constant vector of -1.
    """
    points = F.normalize(features.float(), dim=-1)
    if discovery == "published":
        return torch.where(foreground[..., None], points, -(points.shape[-1] ** -0.5))
    if discovery == "plain":
        return points
    if whitening is not None:
        points = points @ whitening
    inside = foreground[..., None].float()
    count = inside.sum(1, keepdim=True).clamp(min=1)
    points = (points - (points * inside).sum(1, keepdim=True) / count) * inside
    spread = (points.square().sum(1, keepdim=True) / count).sqrt()
    # Half of each width's own spread, half of their mean: a width that hardly varies must not be blown up to noise.
    points = points / (spread + spread.mean(-1, keepdim=True)).clamp(min=1e-6)
    return F.normalize(_blur(points) / _blur(inside).clamp(min=1e-6), dim=-1)


def variant_points(means: torch.Tensor, whitening: torch.Tensor | None) -> torch.Tensor:
    """What tier 3 compares: (..., width) mean features → unit vectors, of `whitened` after the linear map that tier 2
    takes too."""
    points = F.normalize(means.float(), dim=-1)
    return points if whitening is None else F.normalize(points @ whitening, dim=-1)


def _blur(values: torch.Tensor) -> torch.Tensor:
    """A Gaussian, nothing beyond three standard deviations: (n, patches, width) → the same.

    Of one patch on 16×16, √2 on 32×32 (docs/discovery.md), and never less than one.
    """
    side = round(values.shape[1] ** 0.5)
    deviation = max(side / 16, 1) ** 0.5
    distance = (torch.arange(side)[:, None] - torch.arange(side)).float() / deviation
    weights = torch.exp(-distance.square() / 2).where(distance.abs() <= 3, 0.0)
    weights = weights / (deviation * (2 * torch.pi) ** 0.5)
    by_row = weights @ values.unflatten(1, (side, side)).flatten(2)  # (n, row, column · width)
    by_both = weights @ by_row.unflatten(2, (side, -1))  # (n, row, column, width)
    return by_both.flatten(1, 2)


def part_means(
    features: torch.Tensor, label_maps: np.ndarray, labels: int, min_patches: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each part's mean feature, (n, labels, width), and whether it shows, (n, labels) bool."""
    members = F.one_hot(torch.from_numpy(label_maps).long().flatten(1), labels).float()  # (n, patch, label)
    sizes = members.sum(1)
    means = torch.einsum("npl,npd->nld", members, features.float()) / sizes.clamp(min=1)[..., None]
    return means, sizes >= min_patches


def masks_of(label_maps: np.ndarray, part_count: int) -> np.ndarray:
    """Label maps (n, grid, grid) → one binary mask a part, (n, M+1, grid, grid) bool."""
    return label_maps[:, None] == np.arange(part_count + 1)[None, :, None, None]


def _batches(images: np.ndarray | torch.Tensor, size: int = 64) -> Iterator[np.ndarray | torch.Tensor]:
    for start in range(0, len(images), size):
        yield images[start : start + size]
