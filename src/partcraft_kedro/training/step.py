"""One training step: L = L_ldm + λ_attn · L_attn."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.losses import attention_inside, attention_loss, min_snr_weights
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.parts.predictor import ABSENT
from partcraft_kedro.prompts import draw_prompt
from partcraft_kedro.randomness import numpy_generator, torch_generator
from partcraft_kedro.training.cache import TrainingCache


@dataclass(frozen=True)
class Batch:
    """latents, noise: (n, c, h, w); timesteps: (n,); ids: (n, text encoders, length); columns: (n, M+1) positions of
    the parts' tokens, -1 where there is none; masks: (n, M+1, grid, grid) bool."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    ids: torch.Tensor
    columns: torch.Tensor
    masks: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def split(self, size: int) -> "Iterator[Batch]":
        """Pieces of `size` pictures; the last one may be smaller."""
        for pieces in zip(*(tensor.split(size) for tensor in vars(self).values()), strict=True):
            yield Batch(*pieces)

    def to(self, device: torch.device) -> "Batch":
        waits = device.type != "cuda"
        return Batch(*(tensor.to(device, non_blocking=not waits) for tensor in vars(self).values()))


def draw_batch(model: PartCraft, cache: TrainingCache, options: TrainOptions, step: int) -> Batch:
    """The batch of one optimizer step, a function of the seed and the number of the step alone."""
    return _draw(model, cache, options, step).to(model.device)


def draw_batches(
    model: PartCraft, cache: TrainingCache, options: TrainOptions, steps: Iterable[int]
) -> Generator[Batch, None, None]:
    """The batches of steps, for a GPU drawn ahead.

    On a CPU the thread that draws takes cores from the step, which was a third slower for it.
    """
    if model.device.type == "cuda":
        yield from draw_ahead(model, cache, options, steps)
    else:
        yield from (draw_batch(model, cache, options, step) for step in steps)


def draw_ahead(
    model: PartCraft, cache: TrainingCache, options: TrainOptions, steps: Iterable[int]
) -> Generator[Batch, None, None]:
    """The batches of steps, as `draw_batch` gives them: a thread draws the next one while one is worked on."""
    with ThreadPoolExecutor(1) as thread:
        ahead = None
        for step in steps:
            next_ahead = thread.submit(_draw, model, cache, options, step)
            if ahead is not None:
                yield ahead.result().to(model.device)
            ahead = next_ahead
        if ahead is not None:
            yield ahead.result().to(model.device)


def _draw(model: PartCraft, cache: TrainingCache, options: TrainOptions, step: int) -> Batch:
    """On the CPU, for a GPU in pinned memory."""
    seed, size = options.seed, options.batch_size
    positions = range(step * size, (step + 1) * size)
    epochs = {position // len(cache) for position in positions}
    orders = {epoch: numpy_generator(seed, "order", epoch).permutation(len(cache)) for epoch in epochs}
    rows = [orders[position // len(cache)][position % len(cache)] for position in positions]

    rng = numpy_generator(seed, "batch", step)
    flips = rng.integers(0, 2, size)
    codes = [cache.codes[row] for row in rows]
    if options.union_sampling:  # with a generator of its own, so that all else is drawn as without it
        subsets = numpy_generator(seed, "union", step)
        codes = [_some_parts(code, subsets) for code in codes]
    ids, columns = model.prompts.place([draw_prompt(code, rng, options.template_probability) for code in codes])

    generator = torch_generator(seed, "noise", step)
    mean, std = cache.posterior(flips, rows)
    sample = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    if options.stratified_timesteps:
        strata = torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)
    else:
        strata = torch.rand(size, generator=generator) * size
    steps = model.pipeline.scheduler.config.num_train_timesteps
    parts = torch.arange(cache.codes.shape[1])[None, :, None, None]
    batch = Batch(
        latents=sample * model.pipeline.vae.config.scaling_factor,
        noise=noise,
        timesteps=(strata / size * steps).long().clamp(max=steps - 1),
        ids=ids,
        columns=columns,
        masks=cache.label_maps[flips, rows][:, None] == parts,
    )
    if model.device.type == "cuda":  # from there the copy does not wait for the GPU to finish the last step
        return Batch(*(tensor.pin_memory() for tensor in vars(batch).values()))
    return batch


def _some_parts(code: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A code with a random subset of its parts, at least one, the others absent: Break-a-Scene's union sampling."""
    present = np.flatnonzero(code != ABSENT)
    kept = rng.permutation(present)[: rng.integers(len(present)) + 1] if len(present) else present
    return np.where(np.isin(np.arange(len(code)), kept), code, ABSENT)


def _named_places(batch: Batch) -> torch.Tensor:
    """1 where a part of the prompt is, else 0, at the latents' resolution: (n, 1, h, w).

    Break-a-Scene's masked diffusion loss (Avrahami et al. 2023, arXiv:2305.16311, Eq. 1) is the mean over all
    places of the error times this.
    """
    union = (batch.masks & (batch.columns >= 0)[..., None, None]).any(1, keepdim=True)
    return F.interpolate(union.float(), size=batch.latents.shape[-2:], mode="nearest")


def _at_locations(masks: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Masks at the resolution of attention maps: the share of each location that a part has, (n, M+1, h, w) float32.

    Features and attention need not have the same grid: Stable Diffusion 2.1 attends at 24×24.
    """
    masks = masks.float()
    return masks if masks.shape[-2:] == (height, width) else F.interpolate(masks, size=(height, width), mode="area")


def training_loss(
    model: PartCraft, capture: AttentionCapture, noise_schedule: DDPMScheduler, batch: Batch, options: TrainOptions
) -> dict[str, torch.Tensor]:
    """`loss`, its terms `loss_ldm` and `loss_attention`, and `attention_inside`, each a scalar.

    The squared error is on what the base model predicts: noise, v, or the clean latents.
    """
    noisy = noise_schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    prediction_type = noise_schedule.config.prediction_type
    if prediction_type == "v_prediction":
        target = noise_schedule.get_velocity(batch.latents, batch.noise, batch.timesteps)
    else:
        target = batch.noise if prediction_type == "epsilon" else batch.latents
    capture.watch(batch.columns)
    predicted = model.predict(noisy, batch.timesteps, model.prompts.encode(batch.ids))

    errors = F.mse_loss(predicted, target, reduction="none")
    if options.masked_loss:
        errors = errors * _named_places(batch)
    errors = errors.mean((1, 2, 3))
    if options.snr_gamma is not None:
        errors = errors * min_snr_weights(noise_schedule, batch.timesteps, options.snr_gamma)
    maps = capture.maps()
    masks = _at_locations(batch.masks, *maps.shape[-2:])
    of_attention = attention_loss(maps, masks, options.attention_loss, options.attention_normalisation)
    return {
        "loss": errors.mean() + options.attention_weight * of_attention,
        "loss_ldm": errors.mean().detach(),
        "loss_attention": of_attention.detach(),
        "attention_inside": attention_inside(maps.detach(), masks).nanmean(),
    }
