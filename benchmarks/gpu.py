"""What a GPU does with Stable Diffusion's shapes and random weights; written to benchmarks-gpu.json and .md.

    python benchmarks/gpu.py --configs CONFIGS --output docs                    # one GPU, full width, six minutes
    python benchmarks/gpu.py --device cpu --batches 1 2 --rounds 1              # tiny, a minute on a CPU: does it run?

CONFIGS: the folder of Stable Diffusion 1.5 without its weights, as for benchmarks/stable_diffusion.py. Counted, on any
device: copies and memory of a step, on tensors without content. Measured: techniques one by one; steps at each batch
size, eager and compiled, the memory predicted and taken; whether the host waits for the device in a step; what kinds of
kernels take its time; a batch's drawing; sampling; tiny's steps.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode

from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.model.streamlined import streamline
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.memory import step_memory
from partcraft_kedro.training.step import draw_ahead, draw_batch
from partcraft_kedro.weights import TINY
from stable_diffusion import build

PARTS, VARIANTS, PICTURES, GIB = 5, 256, 64, 2**30
COPIES = {"_to_copy", "copy_", "clone", "_foreach_copy_"}  # `contiguous` and `to` are among them
# Kinds of kernels, by what their names have in them; the first that fits.
KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "convolution": ("conv", "fprop", "dgrad", "wgrad", "implicit"),
    "matrix product": ("gemm", "cutlass", "nvjet", "cublas"),
    "copy, cast, layout": ("copy", "nchw", "nhwc", "cast", "Memcpy"),
    "normalisation": ("norm", "_forward", "_backward", "Welford", "RowwiseMoments"),
    "optimizer": ("multi_tensor", "adam"),
}


class Copies(TorchDispatchMode):
    """Counts copies."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: dict | None = None) -> Any:
        self.count += function._schema.name.removeprefix("aten::") in COPIES
        return function(*arguments, **(keywords or {}))


@contextlib.contextmanager
def norms_under_autocast() -> Iterator[None]:
    """Norms as CUDA's autocast has them, in float32, and group norm as CUDA lays it out."""
    own = F.group_norm, F.layer_norm

    def in_float32(
        norm: Callable, x: torch.Tensor, of: Any, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> Any:
        with torch.autocast("cpu", enabled=False):
            return norm(x.float().contiguous(), of, weight.float(), bias.float(), eps)

    F.group_norm, F.layer_norm = (partial(in_float32, norm) for norm in own)
    try:
        yield
    finally:
        F.group_norm, F.layer_norm = own


def counted(config: dict) -> list[dict]:
    """Copies of one step of a U-Net with LoRA, and memory for each further picture, on tensors without content."""
    ways = {"under CUDA's autocast": None, "now, with torch's group norm": False, "now": True}
    rows = []
    for way, fused in ways.items():
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config).to(torch.bfloat16).requires_grad_(False).eval()
            targets = [f"attn2.{projection}" for projection in ("to_q", "to_k", "to_v", "to_out.0")]
            unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets))
        unet.to(memory_format=torch.channels_last)
        if fused is not None:
            streamline(unet, torch.bfloat16, fused=fused)
        unet.register_forward_hook(lambda _, __, output: (output[0].float(),))
        model: Any = SimpleNamespace(
            pipeline=SimpleNamespace(unet=unet, text_encoder=SimpleNamespace(dtype=torch.bfloat16)),
            prompts=SimpleNamespace(tokenizers=[SimpleNamespace(model_max_length=77)], text_encoders=[None]),
            part_encoder=SimpleNamespace(part_count=PARTS),
            device=torch.device("cpu" if fused is None else "cuda"),
            autocast=lambda kind, enabled=fused is None: torch.autocast(kind, torch.bfloat16, enabled=enabled),
        )
        norms = norms_under_autocast() if fused is None else contextlib.nullcontext()
        with AttentionCapture(unet) as capture, norms:
            one = step_memory(model, capture, 1)
            with Copies() as copies:
                two = step_memory(model, capture, 2)
        rows.append({"way": way, "copies in a step": copies.count, "GiB a picture": round((two - one) / GIB, 3)})
    return rows


def options(batch_size: int, **changes: object) -> TrainOptions:
    few = {"method": "partcraft", "steps": 1000, "batch_size": batch_size, "rank": 4, "template_probability": 0.5}
    return TrainOptions(**few | changes)


def make_cache(model: PartCraft) -> TrainingCache:
    """Random latents of the model's own shape."""
    config, generator = model.pipeline.unet.config, torch.Generator().manual_seed(0)
    latents = torch.randn((2, PICTURES, 4, config.sample_size, config.sample_size), generator=generator).half()
    label_maps = torch.randint(0, PARTS + 1, (2, PICTURES, 16, 16), generator=generator, dtype=torch.uint8)
    codes = np.random.default_rng(0).integers(0, VARIANTS, (PICTURES, PARTS + 1))
    return TrainingCache([latents], [latents.abs() * 0.05], label_maps, codes)


class Steps:
    """Optimizer steps, each on the next batch; encode: with the VAE in the step, as plain practice has it."""

    def __init__(self, model: PartCraft, cache: TrainingCache, of: TrainOptions, *, encode: bool = False):
        self._optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-4, fused=True)
        self._gradient = Gradient(model, AttentionCapture(model.pipeline.unet), of, micro_batch=of.batch_size)
        self._batches = draw_ahead(model, cache, of, range(of.steps))
        side = model.pipeline.unet.config.sample_size * model.pipeline.vae_scale_factor
        pixels = torch.zeros(of.batch_size, 3, side, side, device=model.device)
        self._encoded = pixels.split(4) if encode else ()
        self._vae = model.pipeline.vae

    def __call__(self) -> None:
        with torch.no_grad():
            for pixels in self._encoded:
                self._vae.encode(pixels)
        self._gradient(next(self._batches))
        self._optimizer.step()
        self._optimizer.zero_grad()


def seconds(device: str, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def rate(device: str, work: Callable[[], object], items: int, rounds: int) -> dict[str, float]:
    """Items a second, median and extremes of `rounds`, after one to warm up; and what the first took."""
    first = seconds(device, work)
    seconds(device, work)
    found = sorted(items / seconds(device, work) for _ in range(rounds))
    return {
        "a second": round(statistics.median(found), 2), "lowest": round(found[0], 2), "highest": round(found[-1], 2),
        "first, seconds": round(first, 1),
    }  # fmt: skip


def waits(steps: Steps) -> str:
    """Where the host waits for the GPU in a step, if it does."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "nowhere"


def kernels(steps: Steps) -> list[dict]:
    """Shares of a step's time on the GPU, by kind of kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        steps()
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for event in profile.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other")
        times[kind] += event.self_device_time_total
    return [{"kind": kind, "ms": round(time / 1000, 1)} for kind, time in times.most_common()]


def measured(base: str, arguments: argparse.Namespace) -> dict[str, list[dict]]:
    device, batches, rounds = arguments.device, arguments.batches, arguments.rounds

    def fresh(precision: str = "bfloat16", base: str = base) -> PartCraft:
        learns: dict[str, Any] = {"rank": 4, "unet": "lora", "lora_layers": "cross", "bottleneck_layers": 2, "seed": 0}
        return PartCraft.create(base, device, precision, variants=[VARIANTS] * (PARTS + 1), **learns)

    cache, largest = make_cache(fresh()), batches[-1]
    ladder: dict[str, tuple[str, dict, bool]] = {
        "VAE in the step, float32": ("float32", {}, True),
        "latents cached": ("float32", {}, False),
        "bfloat16": ("bfloat16", {}, False),
    }
    tables: dict[str, list[dict]] = {"techniques": [], "steps": [], "drawing": [], "sampling": []}
    for way, (precision, changes, encode) in ladder.items():
        step = Steps(fresh(precision), cache, options(batches[0], **changes), encode=encode)
        tables["techniques"].append(
            {"way": way, "pictures a step": batches[0], **rate(device, step, batches[0], rounds)}
        )
    for batch_size in batches:
        # Compiled at one size alone: it takes the compiler most of a minute.
        for compiled in (False, True) if device == "cuda" and batch_size == batches[len(batches) // 2] else (False,):
            model, of = fresh(), options(batch_size, compile=compiled)
            row = {"way": "compiled" if compiled else "eager", "pictures a step": batch_size}
            if not compiled:
                with AttentionCapture(model.pipeline.unet) as capture:
                    row["GiB, predicted"] = round(step_memory(model, capture, batch_size) / GIB, 2)
            step = Steps(model, cache, of)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            row |= rate(device, step, batch_size, rounds)
            if device == "cuda":
                row["GiB, taken"] = round((torch.cuda.max_memory_allocated() - held) / GIB, 2)
            tables["steps"].append(row)
    if device == "cuda":
        step = Steps(fresh(), cache, options(largest))
        step()
        tables["the host waits"] = [{"where": waits(step)}]
        tables["kernels"] = kernels(step)
    model = fresh()
    for batch_size in batches:
        drawn = rate(device, partial(draw_batch, model, cache, options(batch_size), 0), 1, rounds)
        tables["drawing"].append({"pictures a step": batch_size, "ms": round(1000 / drawn["a second"], 1)})
        sampling = SamplingOptions(steps=arguments.sampling_steps, guidance_scale=7.5, batch_size=batch_size)
        prompts, names = ["a photo of a [0,1] [1,2]"] * batch_size, [str(i) for i in range(batch_size)]
        work = partial(sample_pictures, model, prompts, names, sampling, 0)
        tables["sampling"].append({"pictures": batch_size, **rate(device, work, batch_size, 1)})
    tiny = fresh(base="tiny")
    tables["tiny"] = [{"pictures a step": 8, **rate(device, Steps(tiny, make_cache(tiny), options(8)), 1, rounds)}]
    return tables


def write(about: dict, tables: dict[str, list[dict]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks-gpu.json").write_text(json.dumps({"about": about, **tables}, indent=1) + "\n")
    lines = ["# On a GPU", "", "Written by `benchmarks/gpu.py`; what each table is, stands there.", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines += ["", f"## {name.capitalize()}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows]
    (folder / "benchmarks-gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, help="default: the embedded model tiny")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=float, default=1.0, help="share of the original channels (default: 1)")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8, 16, 32, 64], help="pictures a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--only-count", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, default=Path(), help="folder (default: this one)")
    arguments = parser.parse_args()
    card = torch.cuda.get_device_name() if arguments.device == "cuda" and not arguments.only_count else "none"
    about = {"card": card, "torch": torch.__version__, "width": arguments.width, "rounds": arguments.rounds}
    configs = arguments.configs or TINY / "base"
    tables = {"counted, of a step": counted(json.loads((configs / "unet/config.json").read_text()))}
    with tempfile.TemporaryDirectory() as name:
        base = "tiny"
        if arguments.configs and not arguments.only_count:
            base = str(Path(name) / "model")
            build(arguments.configs, Path(base), arguments.width)
        if not arguments.only_count:
            tables |= measured(base, arguments)
    write(about, tables, arguments.output)


if __name__ == "__main__":
    main()
