"""tiny's two observers: the vision transformer whose features are clustered, and the judge.

The transformer stands in for DINOv2, whose features vary first between foreground and background, then between
parts, then between a part's variants. A network trained to name everything has no such order, and k-means on it
splits by colour. Here the order is the objective: each patch's feature is regressed on a vector whose groups of
coordinates - foreground, part, place, colour, style - have weights that fall in that order, turned
by a random rotation. Discovery sees nothing of this: it gets features, no labels.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.pretraining.fitting import fit
from partcraft_kedro.pretraining.pictures import CODE_WIDTH, PretrainingPictures, patch_codes, patch_fractions
from partcraft_kedro.randomness import numpy_generator, torch_generator

# Foreground, part, place, colour, style.
CODE_WEIGHTS = (1.0, 1.4, 0.5, 0.5, 0.4)


def build_vit() -> Dinov2Model:
    """DINOv2's architecture, four layers of width 96, 8-pixel patches: 16×16 of them on a 128×128 picture."""
    return Dinov2Model(
        Dinov2Config(
            image_size=128,
            patch_size=8,
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            mlp_ratio=3,
            initializer_range=0.05,
        )
    )


class _PatchFeatures(nn.Module):
    """The last block's hidden state before the final norm, without the class token."""

    def __init__(self, vit: Dinov2Model):
        super().__init__()
        self.vit = vit
        vit.layernorm.requires_grad_(False)  # comes after the features
        vit.embeddings.mask_token.requires_grad_(False)  # nothing is masked

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        states = self.vit.encoder(self.vit.embeddings(pictures * 2 - 1)).last_hidden_state[:, 1:]
        return states.unflatten(1, (16, 16))


def _degraded(pictures: np.ndarray, rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
    """Pictures as (n, 3, 128, 128) in 0..1: mirrored, dimmed, noisy or soft, as generated ones may be."""
    batch = to_unit(pictures)
    batch = batch * torch.from_numpy(rng.uniform(0.85, 1.1, (len(batch), 1, 1, 1))).float()
    soft = F.interpolate(F.avg_pool2d(batch, 2), scale_factor=2, mode="bilinear")
    blend = torch.from_numpy(rng.uniform(0, 1, (len(batch), 1, 1, 1)) ** 2).float()
    noise = torch.randn(batch.shape, generator=generator)
    batch = batch + blend * (soft - batch)
    return (batch + noise * float(rng.uniform(0, 0.06))).clamp(0, 1)


def _draw(
    pictures: PretrainingPictures, purpose: str, step: int, batch_size: int, seed: int
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Degraded pictures, their details (n, 128, 128), and their attributes."""
    rng, generator = numpy_generator(seed, purpose, step), torch_generator(seed, purpose, step)
    rows = np.sort(rng.integers(0, len(pictures), batch_size))
    return _degraded(pictures.pictures[rows], rng, generator), pictures.details[rows], pictures.attributes[rows]


def train_vit(
    pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int, device: str
) -> Dinov2Model:
    """Regress every patch's feature on its rotated, ordered code."""
    torch.manual_seed(seed)
    network = _PatchFeatures(build_vit()).to(device)
    width = network.vit.config.hidden_size
    rotation = torch.linalg.qr(torch.randn(width, CODE_WIDTH, generator=torch_generator(seed, "rotation")))[0]

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch, details, looks = _draw(pictures, "vit", step, batch_size, seed)
        codes = torch.from_numpy(patch_codes(patch_fractions(details), looks, CODE_WEIGHTS))
        return batch, 4 * codes @ rotation.T

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        shown, target = (tensor.to(device) for tensor in batch)
        return (network(shown) - target).square().sum(-1).mean()

    return fit(network, draw, loss_of, folder, steps=steps, learning_rate=2e-3).vit


def train_judge(
    pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int, device: str
) -> Judge:
    """Cross-entropy of label, place, style and colour of each patch by its largest label, and of the label or detail of
    every 2×2 pixels."""
    torch.manual_seed(seed)
    judge = Judge().to(device)

    def draw(step: int) -> tuple[torch.Tensor, ...]:
        batch, details, looks = _draw(pictures, "judge", step, batch_size, seed)
        label = patch_fractions(details).argmax(-1)
        of_patch = np.take_along_axis(looks[:, None, None].astype(np.int64), label[..., None, None], 3)[..., 0, :]
        return batch, *map(torch.from_numpy, (label, of_patch, details[:, 1::2, 1::2].astype(np.int64)))

    def loss_of(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        shown, truth, of_patch, fine = (tensor.to(device) for tensor in batch)
        label, place, style, colour, outline = judge(shown)
        background, nothing = truth == 0, -100
        return (
            F.cross_entropy(label, truth)
            + F.cross_entropy(place, of_patch[..., 0].where(background, nothing))
            + F.cross_entropy(style, of_patch[..., 0].where(~background, nothing))
            + F.cross_entropy(colour, of_patch[..., 1].where(~background, nothing))
            + F.cross_entropy(outline, fine)
        )

    return fit(judge, draw, loss_of, folder, steps=steps, learning_rate=2e-3)
