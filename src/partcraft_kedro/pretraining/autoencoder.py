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
    pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int, device: str
) -> AutoencoderKL:
    """L1 + L2 reconstruction and a weak KL term; then scales the latents to unit variance."""
    torch.manual_seed(seed)
    vae = build_autoencoder().to(device)

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = numpy_generator(seed, "autoencoder", step)
        real = _crops(pictures, rng, batch_size)
        shape = (batch_size, vae.config.latent_channels, _CROP // 2, _CROP // 2)
        return real, torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        real, noise = (tensor.to(vae.device) for tensor in batch)
        posterior = vae.encode(real).latent_dist
        again = vae.decode(posterior.mean + posterior.std * noise).sample
        return F.l1_loss(again, real) + F.mse_loss(again, real) + 1e-5 * posterior.kl().mean() / _CROP

    fit(
        vae,
        draw,
        loss_of,
        folder,
        steps=steps,
        learning_rate=2e-3,
        weight_decay=0.0,
    )
    with torch.no_grad():
        latents = vae.encode(to_vae(pictures.pictures[:64]).to(device)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return vae


def train_decoder(
    vae: AutoencoderKL, pictures: PretrainingPictures, folder: Path, *, steps: int, batch_size: int, seed: int
) -> AutoencoderKL:
    """Go on training the decoder alone: latents, and whatever learned from them, stay as they are."""
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)

    def draw(step: int) -> torch.Tensor:
        return _crops(pictures, numpy_generator(seed, "decoder", step), batch_size)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        real = batch.to(vae.device)
        with torch.no_grad():
            latents = vae.encode(real).latent_dist.mean
        again = vae.decode(latents).sample
        return F.l1_loss(again, real) + F.mse_loss(again, real)

    return fit(vae, draw, loss_of, folder, steps=steps, learning_rate=2e-3, weight_decay=0.0)


def _crops(pictures: PretrainingPictures, rng: np.random.Generator, batch_size: int) -> torch.Tensor:
    rows, top, left = rng.integers(0, (len(pictures), 65, 65), size=(batch_size, 3)).T
    corners = zip(rows, top, left, strict=True)
    return to_vae(np.stack([pictures.pictures[i, t : t + _CROP, x : x + _CROP] for i, t, x in corners]))
