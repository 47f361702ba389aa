"""tiny's VAE: diffusers' AutoencoderKL, 128×128 pictures to 64×64×4 latents."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from partcraft_kedro.pretraining.fitting import fit
from partcraft_kedro.pretraining.pictures import PretrainingPictures
from partcraft_kedro.randomness import numpy_generator

_CROP = 64  # pixels: the network is convolutional, so crops teach it as much as whole pictures


def build_autoencoder() -> AutoencoderKL:
    """A factor-2 VAE without attention, so that its cost grows with the number of pixels only."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
    )


def to_network(pictures: np.ndarray) -> torch.Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) float32 in -1..1, the range of every diffusers VAE."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(
    pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int, seconds: float
) -> AutoencoderKL:
    """L1 + L2 reconstruction and a weak KL term; then scales the latents to unit variance."""
    torch.manual_seed(seed)
    vae = build_autoencoder()

    def loss_of_step(step: int) -> torch.Tensor:
        rng = numpy_generator(seed, "autoencoder", step)
        rows, top, left = rng.integers(0, (len(pictures), 65, 65), size=(batch_size, 3)).T
        crops = np.stack(
            [
                pictures.pictures[i, t : t + _CROP, x : x + _CROP]
                for i, t, x in zip(rows, top, left, strict=True)
            ]
        )
        real = to_network(crops)
        posterior = vae.encode(real).latent_dist
        noise = torch.from_numpy(rng.standard_normal(posterior.mean.shape, dtype=np.float32))
        again = vae.decode(posterior.mean + posterior.std * noise).sample
        return F.l1_loss(again, real) + F.mse_loss(again, real) + 1e-5 * posterior.kl().mean() / _CROP

    fit(
        vae,
        loss_of_step,
        folder,
        steps=steps,
        learning_rate=2e-3,
        weight_decay=0.0,
        stop_after_seconds=seconds,
    )
    with torch.no_grad():
        latents = vae.encode(to_network(pictures.pictures[:64])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return vae
