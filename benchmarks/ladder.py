"""Stable Diffusion's shapes with random weights: what each technique brings to the step, and pictures a second.

    python benchmarks/ladder.py --configs CONFIGS                           # a GPU, full width
    python benchmarks/ladder.py --configs CONFIGS --device cpu --width 0.1 --batches 1 2

CONFIGS: the folder of Stable Diffusion 1.5 without its weights, as for benchmarks/stable_diffusion.py. The ladder takes
techniques one by one, at the first batch size; then come eager and compiled steps at each batch size, with the memory
that was predicted beside the memory that was taken; then sampling, 20 steps with guidance at 512 pixels. Prints
a table.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.memory import step_memory
from partcraft_kedro.training.step import draw_batch
from stable_diffusion import build

PARTS, VARIANTS, PICTURES = 5, 256, 64


def options(batch_size: int, **changes: object) -> TrainOptions:
    defaults = {
        "method": "partcraft", "steps": 1, "batch_size": batch_size, "micro_batch": None,
        "gradient_checkpointing": False, "compile": False, "learning_rate": 1e-4, "weight_decay": 0.01, "rank": 4,
        "lora_layers": "cross", "template_probability": 0.5, "snr_gamma": None, "max_gradient_norm": 1.0,
        "checkpoint_every": 1000, "log_every": 100, "sample_every": 1000, "seed": 0,
    }  # fmt: skip
    return TrainOptions(**defaults | changes)


def make_cache(model: PartCraft) -> TrainingCache:
    """Random latents of the model's own shape."""
    config, generator = model.pipeline.unet.config, torch.Generator().manual_seed(0)
    latents = torch.randn((2, PICTURES, 4, config.sample_size, config.sample_size), generator=generator).half()
    label_maps = torch.randint(0, PARTS + 1, (2, PICTURES, 16, 16), generator=generator, dtype=torch.uint8)
    codes = np.random.default_rng(0).integers(0, VARIANTS, (PICTURES, PARTS + 1))
    return TrainingCache([latents], [latents.abs() * 0.05], label_maps, codes)


def rate(device: str, work: Callable[[int], object], items: int, rounds: int) -> float:
    """Items a second, the median of `rounds` after two to warm up."""
    seconds = []
    for step in range(rounds + 2):
        begin = time.perf_counter()
        work(step)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return items / statistics.median(seconds[2:])


def steps_of(
    model: PartCraft, cache: TrainingCache, of: TrainOptions, *, encode: bool = False
) -> Callable[[int], None]:
    """A function that takes one optimizer step; encode: with the VAE in the step, as plain practice has it."""
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-4, fused=True)
    gradient = Gradient(model, AttentionCapture(model.pipeline.unet), of, micro_batch=of.batch_size)
    side = model.pipeline.unet.config.sample_size * model.pipeline.vae_scale_factor
    pixels = torch.zeros(of.batch_size, 3, side, side, device=model.device)

    def step(number: int) -> None:
        if encode:
            with torch.no_grad():
                for picture in pixels.split(gradient.micro_batch):
                    model.pipeline.vae.encode(picture)
        gradient(draw_batch(model, cache, of, number))
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=float, default=1.0, help="share of the original channels (default: 1)")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 2, 16, 32], help="pictures a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave compiled steps out")
    arguments = parser.parse_args()
    device, first = arguments.device, arguments.batches[0]
    with tempfile.TemporaryDirectory() as name:
        folder = str(Path(name) / "model")
        build(arguments.configs, Path(folder), arguments.width)

        def fresh(precision: str) -> PartCraft:
            return PartCraft.create(
                folder, device, precision, variants=[VARIANTS] * (PARTS + 1), rank=4, unet="lora", lora_layers="cross",
                bottleneck_layers=2, seed=0,
            )  # fmt: skip

        cache = make_cache(fresh("float32"))
        ladder: dict[str, tuple[str, dict, bool]] = {
            "VAE in the step, float32, two pictures a pass": ("float32", {"micro_batch": min(2, first)}, True),
            "latents cached": ("float32", {"micro_batch": min(2, first)}, False),
            "bfloat16": ("bfloat16", {"micro_batch": min(2, first)}, False),
            "one pass": ("bfloat16", {}, False),
        }
        before = None
        for technique, (precision, changes, encode) in ladder.items():
            step = steps_of(fresh(precision), cache, options(first, **changes), encode=encode)
            found = rate(device, step, first, arguments.rounds)
            gain = f"{found / before:.2f}×" if before else ""
            print(f"{technique:<48} B={first:<3} {found:9.3f} pictures/s  {gain}", flush=True)
            before = found
        for batch_size in arguments.batches:
            for compiled in (False,) if arguments.no_compile else (False, True):
                model = fresh("bfloat16")
                step = steps_of(model, cache, options(batch_size, compile=compiled))
                line = ""
                if not compiled:
                    with AttentionCapture(model.pipeline.unet) as capture:
                        line = f"predicted {step_memory(model, capture, batch_size) / 2**30:.2f} GiB"
                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                    held = torch.cuda.memory_allocated()
                found = rate(device, step, batch_size, arguments.rounds)
                if device == "cuda":
                    line += f", taken {(torch.cuda.max_memory_allocated() - held) / 2**30:.2f} GiB"
                way = "compiled" if compiled else "eager"
                print(f"{way:<48} B={batch_size:<3} {found:9.3f} pictures/s  {line}", flush=True)
        sampling = SamplingOptions(steps=20, guidance_scale=7.5, batch_size=first)
        model = fresh("bfloat16")
        names = [str(i) for i in range(first)]
        drawn = rate(
            device, lambda _: sample_pictures(model, ["a photo of a [0,1] [1,2]"] * first, names, sampling, 0), first, 1
        )
        print(f"{'sampling, 20 steps with guidance':<48} B={first:<3} {drawn:9.3f} pictures/s")


if __name__ == "__main__":
    main()
