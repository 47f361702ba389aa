"""Optimizer steps of eight pictures: the published design, plain diffusers practice, ours."""

import functools
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from diffusers import DDPMScheduler

from measure import Result, side_by_side
from partcraft_kedro.devices import half_precision
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.model import partcraft
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import cast_frozen
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.randomness import numpy_generator, torch_generator
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.step import Batch, draw_batch, training_loss
from subjects.published_step import Pictures, PublishedStep, encode
from subjects.world import BATCH, SIZE, TRAINING, World, fresh_model

_TURN = 4  # steps in a row, as a training takes them

Step = Callable[[int], float]  # the number of an optimizer step to its loss


def measure(world: World, rounds: int) -> tuple[list[Result], dict]:
    steps = {
        "published design, float32": _published(world),
        "plain diffusers practice, float32": _plain(world, "float32"),
        "ours, float32": _ours(world, "float32"),
    }
    if half_precision("cpu") is torch.bfloat16:
        steps["plain diffusers practice, bfloat16"] = _plain(world, "bfloat16")
        steps["ours, bfloat16"] = _ours(world, "bfloat16")
    steps["ours, compiled"] = _ours(world, "auto", compiled=True)
    losses = {name: round(step(0), 5) for name, step in steps.items()}  # from the same weights, on the same draws
    print("losses of the first step:", losses)

    def turn(step: Step) -> int:
        for number in range(_TURN):
            step(number)
        return _TURN * BATCH

    ways = {name: functools.partial(turn, step) for name, step in steps.items()}
    return side_by_side("training step", "picture", ways, rounds=rounds), {"losses of the first step": losses}


def _published(world: World) -> Step:
    model = _as_it_comes("float32")
    published = PublishedStep(model, world.predictor, TRAINING)

    def gradients(number: int) -> float:
        return published(draw_batch(model, world.cache, TRAINING, number), _pictures_of(world, number))

    return _with_optimizer(model, gradients, fused=False)


def _plain(world: World, precision: str) -> Step:
    model = _as_it_comes(precision)
    autocast = torch.autocast("cpu", model.pipeline.unet.dtype, enabled=precision != "float32")
    schedule, capture = DDPMScheduler.from_config(model.own_scheduler.config), AttentionCapture(model.pipeline.unet)

    def gradients(number: int) -> float:
        drawn = vars(draw_batch(model, world.cache, TRAINING, number))
        batch = Batch(**drawn | {"latents": encode(model, _pictures_of(world, number))})
        with autocast:
            loss = training_loss(model, capture, schedule, batch, TRAINING)["loss"]
        loss.backward()
        return loss.item()

    return _with_optimizer(model, gradients, fused=False)


def _ours(world: World, precision: str, *, compiled: bool = False) -> Step:
    model = fresh_model(precision)
    options = TRAINING.model_copy(update={"compile": compiled})
    gradient = Gradient(model, AttentionCapture(model.pipeline.unet), options)

    def gradients(number: int) -> float:
        return gradient(draw_batch(model, world.cache, options, number))["loss"].item()

    return _with_optimizer(model, gradients, fused=True)


def _with_optimizer(model: PartCraft, gradients: Step, *, fused: bool) -> Step:
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-4, fused=fused)

    def step(number: int) -> float:
        loss = gradients(number)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def _as_it_comes(precision: str) -> PartCraft:
    """Networks as diffusers, transformers and PEFT have them, frozen weights in a type; kept memory serves all ways."""
    with mock.patch.object(partcraft, "compute_in", cast_frozen):
        return fresh_model(precision)


def _pictures_of(world: World, step: int) -> Pictures:
    """The pictures that `draw_batch` draws for a step, decoded and flipped as it does."""
    count = len(world.paths)
    positions = range(step * BATCH, (step + 1) * BATCH)
    orders = {epoch: numpy_generator(0, "order", epoch).permutation(count) for epoch in {p // count for p in positions}}
    rows = [orders[position // count][position % count] for position in positions]
    pixels = load_pictures([world.paths[row] for row in rows], SIZE)
    flips = numpy_generator(0, "batch", step).integers(0, 2, BATCH)
    flipped = np.stack([p[:, ::-1] if flip else p for p, flip in zip(pixels, flips, strict=True)])
    noise = torch.randn((BATCH, 4, SIZE // 2, SIZE // 2), generator=torch_generator(0, "noise", step))
    return Pictures(flipped, noise)
