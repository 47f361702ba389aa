"""The losses of pictures that training never sees, always of the same noise and timesteps.

A training loss jumps with what each batch draws. Here nothing is drawn anew: what moves the curve is what was learnt,
and it turns where a model begins to learn its pictures by heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler

from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import picture_size
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.randomness import derive_seed
from partcraft_kedro.training.cache import TrainingCache, write_latents
from partcraft_kedro.training.step import Batch, draw_batch, training_loss


@dataclass(frozen=True)
class Validation:
    """A batch of held-out pictures to measure a model on. options: of the training."""

    batch: Batch
    options: TrainOptions

    @classmethod
    def of_pictures(
        cls,
        model: PartCraft,
        paths: Sequence[Path],
        label_maps: np.ndarray,
        codes: Sequence[np.ndarray],
        options: TrainOptions,
        folder: Path,
    ) -> "Validation":
        """Of each picture one latent, noise and timestep, these in even strata. Latents are kept in `folder`.

        label_maps: (n, grid, grid) uint8; codes: n of (M+1,).
        """
        write_latents(model.pipeline.vae, paths, picture_size(model.pipeline), folder)
        cache = TrainingCache.load(folder, label_maps, codes)
        once = {"batch_size": len(cache), "stratified_timesteps": True, "seed": derive_seed(options.seed, "validation")}
        return cls(draw_batch(model, cache, options.model_copy(update=once), step=0), options)

    @torch.no_grad()
    def measure(self, model: PartCraft, capture: AttentionCapture, micro_batch: int) -> dict[str, float]:
        """What `training_loss` gives, each by the name `validation_<name>`, in passes of `micro_batch` pictures."""
        schedule = DDPMScheduler.from_config(model.own_scheduler.config)
        sums: dict[str, float] = {}
        with torch.compiler.set_stance("force_eager"):  # not compiled anew for a few pictures
            for piece in self.batch.split(micro_batch):
                share = len(piece) / len(self.batch)
                for name, value in training_loss(model, capture, schedule, piece, self.options).items():
                    name = f"validation_{name}"
                    sums[name] = sums.get(name, 0.0) + share * float(value)
        return sums
