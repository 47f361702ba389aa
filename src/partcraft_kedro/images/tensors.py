"""Pictures as arrays and as tensors: (n, h, w, 3) uint8 on one side, (n, 3, h, w) float32 on the other."""

import numpy as np
import torch

from partcraft_kedro.errors import UserError


def to_unit(pictures: np.ndarray) -> torch.Tensor:
    """uint8 → 0..1, the range of image processors and of the judge."""
    return torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255


def to_vae(pictures: np.ndarray) -> torch.Tensor:
    """uint8 → -1..1, the range of every diffusers VAE."""
    return to_unit(pictures) * 2 - 1


def from_unit(pictures: torch.Tensor) -> np.ndarray:
    """0..1 → uint8, rounded; values beyond are clipped. Raises UserError for NaN, which would turn black."""
    if pictures.isnan().any():
        raise UserError(
            "A picture came out of the base model as no numbers: give base.precision=float32, or train with a smaller "
            "train.learning_rate."
        )
    return (pictures.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_vae(pictures: torch.Tensor) -> np.ndarray:
    """-1..1 → uint8, rounded; values beyond are clipped."""
    return from_unit(pictures / 2 + 0.5)
