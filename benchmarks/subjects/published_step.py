"""The training step as published, and as plain diffusers practice has it: what `training.step` is measured against.

Written from the description of the authors' code, for the benchmark alone. Each step encodes its pictures with the
VAE, finds their parts with the vision transformer and k-means, computes attention explicitly in every
layer of the U-Net, goes through tokens one by one, and sums two pictures a pass over four passes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.attention_processor import Attention

from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.model.attention import attention_layers
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.training.step import Batch


@dataclass
class Pictures:
    """Decoded pictures, (n, h, w, 3) uint8, of a batch, flipped as its draws say."""

    pixels: np.ndarray
    posterior_noise: torch.Tensor  # (n, c, h, w), standard normal


class ExplicitAttention:
    """Attention of every layer written out, all probabilities of cross-attention kept."""

    def __init__(self, name: str, kept: dict[str, torch.Tensor]):
        self._name, self._kept = name, kept

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        residual, shape = hidden_states, hidden_states.shape
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key, value = attn.head_to_batch_dim(attn.to_k(context)), attn.head_to_batch_dim(attn.to_v(context))
        probabilities = attn.get_attention_scores(query, key)
        if encoder_hidden_states is not None:
            self._kept[self._name] = probabilities
        mixed = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(probabilities @ value)))
        if len(shape) == 4:
            mixed = mixed.transpose(1, 2).reshape(shape)
        return (mixed + residual if attn.residual_connection else mixed) / attn.rescale_output_factor


def encode(model: PartCraft, pictures: Pictures) -> torch.Tensor:
    """Latents of a batch, sampled from the posterior with the draws that the cached step uses."""
    with torch.no_grad():
        posterior = model.pipeline.vae.encode(to_vae(pictures.pixels)).latent_dist
    sample = posterior.mean + posterior.std * pictures.posterior_noise
    return sample * model.pipeline.vae.config.scaling_factor


class PublishedStep:
    """Forward and backward over a batch of eight, with the U-Net's attention written out."""

    def __init__(self, model: PartCraft, predictor: PartPredictor, options: TrainOptions):
        self._model, self._predictor, self._options = model, predictor, options
        self._schedule = DDPMScheduler.from_config(model.own_scheduler.config)
        self._kept: dict[str, torch.Tensor] = {}
        unet = model.pipeline.unet
        unet.set_attn_processor({name: ExplicitAttention(name, self._kept) for name in unet.attn_processors})

    def __call__(self, batch: Batch, pictures: Pictures) -> float:
        """Gradients of the batch's loss, two pictures a pass; returns the loss, as logged in every step."""
        total = 0.0
        for start in range(0, len(batch), 2):
            part = slice(start, start + 2)
            piece = Batch(*(tensor[part] for tensor in vars(batch).values()))
            loss = self._loss(piece, Pictures(pictures.pixels[part], pictures.posterior_noise[part]))
            (loss * 2 / len(batch)).backward()
            total += loss.item() * 2 / len(batch)
        return total

    def _loss(self, batch: Batch, pictures: Pictures) -> torch.Tensor:
        latents = encode(self._model, pictures)
        label_maps = torch.from_numpy(self._predictor.segment(pictures.pixels)[0])
        noisy = self._schedule.add_noise(latents, batch.noise, batch.timesteps)
        target = self._schedule.get_velocity(latents, batch.noise, batch.timesteps)
        predicted = self._model.predict(noisy, batch.timesteps, self._model.prompts.encode(batch.ids))
        of_pictures = []
        for i in range(len(batch)):
            maps = {}
            for m in range(batch.columns.shape[1]):
                if (column := int(batch.columns[i, m])) >= 0:
                    layers = []
                    for layer in attention_layers(self._model.pipeline.unet):
                        probabilities = self._kept[f"{layer}.processor"].unflatten(0, (len(batch), -1))
                        layers.append(probabilities[i, :, :, column].mean(0).unflatten(0, (16, 16)))
                    maps[m] = torch.stack(layers).mean(0)
            everything = sum(maps.values())
            terms = []
            for m, attention in maps.items():
                share = (attention / everything).clamp(1e-6, 1 - 1e-6)
                terms.append(F.binary_cross_entropy(share, (label_maps[i] == m).float()))
            of_pictures.append(sum(terms) / len(terms))
        loss_attention = sum(of_pictures) / len(of_pictures)
        return F.mse_loss(predicted, target) + self._options.attention_weight * loss_attention
