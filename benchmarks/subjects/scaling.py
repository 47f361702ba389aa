"""Seconds and memory of a step against its batch and its parts; seconds of drawing a batch against the dataset."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.memory import step_memory
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.step import draw_batch
from subjects.world import PARTS, TRAINING, VARIANTS, World, fresh_model


def scaling(world: World, rounds: int) -> dict[str, pd.DataFrame]:
    """Tables `batch`, `parts` and `dataset`."""
    tables = {"batch": _against_batch(world, rounds), "parts": _against_parts(world, rounds)}
    return {name: pd.DataFrame(rows) for name, rows in (tables | {"dataset": _against_dataset()}).items()}


def _against_batch(world: World, rounds: int) -> list[dict]:
    rows, model = [], fresh_model("auto")
    for batch_size in (1, 2, 4, 8, 16, 32):
        options = TRAINING.model_copy(update={"batch_size": batch_size})
        with AttentionCapture(model.pipeline.unet) as capture:
            memory = step_memory(model, capture, batch_size) / 2**20
        seconds = _of_step(model, world.cache, options, rounds)
        rows.append({"pictures a step": batch_size, "seconds": seconds, "MiB": memory})
    return rows


def _against_parts(world: World, rounds: int) -> list[dict]:
    rows = []
    for parts in (2, 5, 10, 20):
        codes = np.tile(np.arange(parts + 1) % VARIANTS, (len(world.cache), 1))
        cache = TrainingCache(world.cache.mean, world.cache.std, world.cache.label_maps, codes)
        seconds = _of_step(fresh_model("auto", parts=parts), cache, TRAINING, rounds)
        rows.append({"parts": parts, "seconds": seconds})
    return rows


def _against_dataset() -> list[dict]:
    model = fresh_model("auto")
    return [_of_dataset(model, pictures) for pictures in (100, 1_000, 10_000, 100_000)]


def _of_dataset(model: PartCraft, pictures: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        first = Path(name) / "latents-0000000.safetensors"
        save_file({"mean": torch.zeros(2, 32, 4, 64, 64).half(), "std": torch.zeros(2, 32, 4, 64, 64).half()}, first)
        for start in range(32, pictures, 32):  # the same shard under as many names
            (Path(name) / f"latents-{start:07d}.safetensors").hardlink_to(first)
        codes = list(np.tile(np.arange(PARTS + 1), (pictures, 1)))
        maps = np.zeros((pictures, 16, 16), np.uint8)
        opened = _median_seconds(lambda _: TrainingCache.load(Path(name), maps, codes), 3)
        cache = TrainingCache.load(Path(name), maps, codes)
        drawn = _median_seconds(lambda step: draw_batch(model, cache, TRAINING, step), 20)
        return {"pictures": pictures, "seconds to open": opened, "seconds to draw 8": drawn}


def _of_step(model: PartCraft, cache: TrainingCache, options: TrainOptions, rounds: int) -> float:
    with AttentionCapture(model.pipeline.unet) as capture:
        gradient = Gradient(model, capture, options)
        return _median_seconds(lambda step: gradient(draw_batch(model, cache, options, step)), rounds)


def _median_seconds(work: Callable[[int], object], rounds: int) -> float:
    """Of `rounds`, after one to warm up."""
    seconds = []
    for number in range(rounds + 1):
        begin = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])
