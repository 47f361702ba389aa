"""tiny's VAE: diffusers' AutoencoderKL, 128×128 pictures to 64×64×4 latents."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from partcraft_kedro.images.tensors import to_vae
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


def train_autoencoder(
    pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int
) -> AutoencoderKL:
    """L1 + L2 reconstruction and a weak KL term; then scales the latents to unit variance."""
    torch.manual_seed(seed)
    vae = build_autoencoder()

    def loss_of_step(step: int) -> torch.Tensor:
        rng = numpy_generator(seed, "autoencoder", step)
        real = _crops(pictures, rng, batch_size)
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
    )
    with torch.no_grad():
        latents = vae.encode(to_vae(pictures.pictures[:64])).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return vae


def train_decoder(
    vae: AutoencoderKL, pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int
) -> AutoencoderKL:
    """Go on training the decoder alone: latents, and whatever learned from them, stay as they are."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)

    def loss_of_step(step: int) -> torch.Tensor:
        real = _crops(pictures, numpy_generator(seed, "decoder", step), batch_size)
        with torch.no_grad():
            latents = vae.encode(real).latent_dist.mean
        again = vae.decode(latents).sample
        return F.l1_loss(again, real) + F.mse_loss(again, real)

    return fit(vae, loss_of_step, folder, steps=steps, learning_rate=2e-3, weight_decay=0.0)


def _crops(pictures: PretrainingPictures, rng: np.random.Generator, batch_size: int) -> torch.Tensor:
    rows, top, left = rng.integers(0, (len(pictures), 65, 65), size=(batch_size, 3)).T
    corners = zip(rows, top, left, strict=True)
    return to_vae(np.stack([pictures.pictures[i, t : t + _CROP, x : x + _CROP] for i, t, x in corners]))
