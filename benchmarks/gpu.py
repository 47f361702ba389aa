"""What a GPU does with Stable Diffusion's shapes and random weights; written to benchmarks-gpu.json and .md.

    python benchmarks/gpu.py --configs CONFIGS --output docs                    # one GPU, full width, six minutes
    python benchmarks/gpu.py --device cpu --batches 1 2 --rounds 1              # tiny, a minute on a CPU: does it run?

CONFIGS: the folder of Stable Diffusion 1.5 without its weights, as for benchmarks/stable_diffusion.py; with
--only-count also of another. Counted, on any device, on tensors without content: copies, products and memory of a step;
the memory of steps, sampling and the VAE. Measured: plain diffusers practice beside ours; techniques one by one; steps
at each batch size, eager and compiled, the memory predicted and taken; whether the host waits for the device in a step;
what kinds of kernels take its time; a batch's drawing; sampling, eager and compiled; the VAE; tiny's steps, eager and
compiled.
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
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode

from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model.attention import AttentionCapture, attend_fused
from partcraft_kedro.model.base import load_base, picture_size
from partcraft_kedro.model.compilation import compile_networks
from partcraft_kedro.model.memory import decoding_memory, encoding_memory, sampling_memory, step_memory
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.model.streamlined import streamline
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.step import draw_ahead, draw_batch
from partcraft_kedro.weights import TINY
from stable_diffusion import build

PARTS, VARIANTS, PICTURES, GIB = 5, 256, 64, 2**30
MOST_SAMPLED = 32  # pictures at once
COPIES = {"_to_copy", "copy_", "clone", "_foreach_copy_"}  # `contiguous` and `to` are among them
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
TARGETS = [f"attn2.{projection}" for projection in ("to_q", "to_k", "to_v", "to_out.0")]
# Kinds of kernels, by what their names have in them; the first that fits.
KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "convolution": ("conv", "fprop", "dgrad", "wgrad", "implicit"),
    "matrix product": ("gemm", "cutlass", "nvjet", "cublas"),
    "copy, cast, layout": ("copy", "Copy", "nchw", "nhwc", "cast", "Memcpy"),
    "normalisation": ("norm", "_forward", "_backward", "Welford", "RowwiseMoments"),
    "optimizer": ("multi_tensor", "adam"),
}


class Operations(TorchDispatchMode):
    """Counts operations, by name."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def of(self, names: set[str]) -> int:
        return sum(self._counts[name] for name in names)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: dict | None = None) -> Any:
        self._counts[function._schema.name.removeprefix("aten::")] += 1
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


def without_content(configs: Path, *, autocast: bool, fused: bool, size: int | None) -> Any:
    """What stands for a model with LoRA in what is counted, as on a GPU. size: of pictures; None: the base's own."""
    config, words = (json.loads((configs / name / "config.json").read_text()) for name in ("unet", "text_encoder"))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config).to(torch.bfloat16).requires_grad_(False).eval()
        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS))
        vae = AutoencoderKL.from_config(json.loads((configs / "vae/config.json").read_text())).requires_grad_(False)
    if autocast:
        unet.to(memory_format=torch.channels_last)
        unet.forward = torch.autocast("cpu", torch.bfloat16)(unet.forward)
        unet.register_forward_hook(lambda _, __, output: (output[0].float(),))
    else:
        streamline(unet, torch.bfloat16, torch.channels_last, fused=fused)
        attend_fused(unet)
    words_in = torch.float32 if autocast else torch.bfloat16  # as CUDA's autocast has layer norm, the encoder's last
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    unet.register_to_config(sample_size=size // scale if size else unet.config.sample_size)
    if unet.config.sample_size * scale >= 256:  # as in `load_base`
        vae.enable_slicing()
    encoders = [SimpleNamespace(config=SimpleNamespace(projection_dim=1280))] * (
        1 + (configs / "text_encoder_2").exists()
    )
    return SimpleNamespace(
        pipeline=SimpleNamespace(
            unet=unet, vae=vae, text_encoder=SimpleNamespace(dtype=words_in), vae_scale_factor=scale
        ),
        prompts=SimpleNamespace(
            tokenizers=[SimpleNamespace(model_max_length=words["max_position_embeddings"])], text_encoders=encoders
        ),
        part_encoder=SimpleNamespace(part_count=PARTS),
        device=torch.device("cuda"),
    )


def counted(configs: Path) -> list[dict]:
    """Copies and products of one step of a U-Net with LoRA, and memory for each further picture."""
    ways = {
        "under CUDA's autocast": (True, False),
        "now, with torch's group norm": (False, False),
        "now": (False, True),
    }
    rows = []
    for way, (autocast, fused) in ways.items():
        model = without_content(configs, autocast=autocast, fused=fused, size=None)
        norms = norms_under_autocast() if autocast else contextlib.nullcontext()
        with AttentionCapture(model.pipeline.unet) as capture, norms:
            one = step_memory(model, capture, 1)
            with Operations() as operations:
                two = step_memory(model, capture, 2)
        counts = {"copies in a step": operations.of(COPIES), "products in a step": operations.of(PRODUCTS)}
        rows.append({"way": way, **counts, "GiB a picture": round((two - one) / GIB, 3)})
    return rows


def memory(configs: Path, batches: list[int], size: int | None) -> list[dict]:
    """Of passes over pictures, beside the weights: on the line through one and two, but for sampling, which decodes."""
    model = without_content(configs, autocast=False, fused=True, size=size)
    unet = model.pipeline.unet
    with AttentionCapture(unet) as capture:
        step = partial(step_memory, model, capture)
        lines = {"a step": (step(1), step(2))}
        unet.enable_gradient_checkpointing()
        unet.train()
        lines["with checkpointing"] = (step(1), step(2))
        unet.eval()
    for way, need in (("encoding", encoding_memory), ("decoding", decoding_memory)):
        lines[way] = (need(model.pipeline, 1), need(model.pipeline, 2))
    return [
        {"pictures": count}
        | {way: round((one + (count - 1) * (two - one)) / GIB, 2) for way, (one, two) in lines.items()}
        | {"sampling, guided": round(sampling_memory(model, count, guided=True) / GIB, 2)}
        for count in batches
    ]


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
    """Optimizer steps, each on the next batch; encode: with the VAE in the step."""

    def __init__(
        self,
        model: PartCraft,
        capture: AttentionCapture,
        cache: TrainingCache,
        of: TrainOptions,
        *,
        encode: bool = False,
    ):
        self._optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-4, fused=True)
        self._gradient = Gradient(model, capture, of, micro_batch=of.batch_size)
        self._batches = draw_ahead(model, cache, of, range(of.steps))
        side = picture_size(model.pipeline)
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


class PlainSteps:
    """What diffusers' example of training LoRA does in a step: the VAE in it, autocast, no attention loss."""

    def __init__(self, base: str, device: str, batch_size: int):
        self._pipeline = pipeline = load_base(base, device)
        pipeline.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS))
        learnt = [weight for weight in pipeline.unet.parameters() if weight.requires_grad]
        for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            for weight in network.parameters():
                weight.data = weight.data if weight.requires_grad else weight.data.bfloat16()
        self._optimizer = torch.optim.AdamW(learnt, lr=1e-4)
        self._schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        side, length = picture_size(pipeline), pipeline.tokenizer.model_max_length
        self._pixels = torch.zeros(batch_size, 3, side, side, device=device, dtype=torch.bfloat16)
        self._ids = torch.zeros(batch_size, length, device=device, dtype=torch.long)

    def __call__(self) -> None:
        pipeline, device = self._pipeline, self._pixels.device
        with torch.no_grad():
            latents = pipeline.vae.encode(self._pixels).latent_dist.sample() * pipeline.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self._schedule.config.num_train_timesteps, (len(latents),), device=device)
        with torch.autocast(device.type, torch.bfloat16):
            words = pipeline.text_encoder(self._ids, return_dict=False)[0]
            noisy = self._schedule.add_noise(latents, noise, timesteps)
            predicted = pipeline.unet(noisy, timesteps, words, return_dict=False)[0]
        F.mse_loss(predicted.float(), noise.float()).backward()
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


def taken(device: str, work: Callable[[], object]) -> dict[str, float]:
    """GiB at the peak of work on a GPU, beyond what was held before."""
    if device != "cuda":
        return {}
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return {"GiB, taken": round((torch.cuda.max_memory_allocated() - held) / GIB, 2)}


def measured(base: str, arguments: argparse.Namespace) -> dict[str, list[dict]]:
    device, batches, rounds = arguments.device, arguments.batches, arguments.rounds

    def fresh(precision: str = "bfloat16", base: str = base, unet: str = "lora") -> PartCraft:
        learns: dict[str, Any] = {"rank": 4, "unet": unet, "lora_layers": "cross", "bottleneck_layers": 2, "seed": 0}
        return PartCraft.create(base, device, precision, variants=[VARIANTS] * (PARTS + 1), **learns)

    def steps(model: PartCraft, batch_size: int, way: str, *, encode: bool = False, **changes: Any) -> dict:
        with AttentionCapture(model.pipeline.unet) as capture:
            predicted = step_memory(model, capture, batch_size) / GIB
            step = Steps(model, capture, cache, options(batch_size, **changes), encode=encode)
            row = {"way": way, "pictures a step": batch_size, **rate(device, step, batch_size, rounds)}
            return row | taken(device, step) | {"GiB, predicted": round(predicted, 2)}

    middle = batches[len(batches) // 2]
    tables: dict[str, list[dict]] = {"techniques": [], "steps": [], "drawing": [], "sampling": []}
    for batch_size in batches[1:3] or batches:
        found = rate(device, PlainSteps(base, device, batch_size), batch_size, rounds)
        tables["techniques"].append({"way": "plain diffusers practice", "pictures a step": batch_size, **found})
    model = fresh("float32")
    cache = make_cache(model)
    tables["techniques"] += [
        steps(model, batches[0], "VAE in the step, float32", encode=True),
        steps(model, batches[0], "latents cached, float32"),
    ]
    model = fresh()
    tables["techniques"].append(steps(model, batches[0], "bfloat16"))
    for batch_size in batches:
        tables["steps"].append(steps(model, batch_size, "eager"))
        drawn = rate(device, partial(draw_batch, model, cache, options(batch_size), 0), 1, rounds)
        tables["drawing"].append({"pictures a step": batch_size, "ms": round(1000 / drawn["a second"], 1)})
    if device == "cuda":
        with AttentionCapture(model.pipeline.unet) as capture:
            step = Steps(model, capture, cache, options(batches[-1]))
            step()
            tables["the host waits"] = [{"where": waits(step)}]
            tables["kernels"] = kernels(step)

    if device == "cuda":  # a minute
        tables["steps"].append(steps(model, middle, "compiled", compile=True))
    model = fresh(unet="frozen")  # an adapter's LoRA is in the weights when it is drawn with

    def sampled(batch_size: int, way: str) -> dict:
        of = SamplingOptions(steps=arguments.sampling_steps, guidance_scale=7.5, batch_size=batch_size)
        prompts, names = ["a photo of a [0,1] [1,2]"] * batch_size, [str(i) for i in range(batch_size)]
        work = partial(sample_pictures, model, prompts, names, of, 0)
        predicted = sampling_memory(model, batch_size, guided=True) / GIB
        row = {"way": way, "pictures": batch_size, **rate(device, work, batch_size, 1)} | taken(device, work)
        return row | {"GiB, predicted": round(predicted, 2)}

    tables["sampling"] = [sampled(batch_size, "eager") for batch_size in batches if batch_size <= MOST_SAMPLED]
    if device == "cuda":
        compile_networks([model.pipeline.unet], model.device, graphs=False)
        tables["sampling"].append(sampled(middle, "compiled"))
    tables["vae"] = vae_rows(model, device, rounds)
    model = fresh(base="tiny")
    cache = make_cache(model)
    tables["tiny"] = [steps(model, 8, "eager")]
    if device == "cuda":
        tables["tiny"].append(steps(model, 8, "compiled", compile=True))
    for row in tables["tiny"]:
        row["steps a second"] = round(row["a second"] / 8, 1)
    return tables


@torch.inference_mode()
def vae_rows(model: PartCraft, device: str, rounds: int) -> list[dict]:
    """Encoding and decoding, one by one and four at once."""
    pipeline, vae, side = model.pipeline, model.pipeline.vae, picture_size(model.pipeline)
    pixels = torch.zeros(4, 3, side, side, device=device)
    latents = vae.encode(pixels).latent_dist.mean
    rows = []
    for at_once, slicing in ((1, vae.enable_slicing), (4, vae.disable_slicing)):
        slicing()
        for way, work, predict in (
            ("encoding", partial(vae.encode, pixels), encoding_memory),
            ("decoding", partial(vae.decode, latents), decoding_memory),
        ):
            row = {"way": way, "at once": at_once, **rate(device, work, 4, rounds)} | taken(device, work)
            rows.append(row | {"GiB, predicted": round(predict(pipeline, 4) / GIB, 2)})
    return rows


def write(about: dict, tables: dict[str, list[dict]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks-gpu.json").write_text(json.dumps({"about": about, **tables}, indent=1) + "\n")
    lines = ["# On a GPU", "", "Written by `benchmarks/gpu.py`; what each table is, stands there.", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines += ["", f"## {name[0].upper()}{name[1:]}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in rows]
    (folder / "benchmarks-gpu.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, help="default: the embedded model tiny")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=float, default=1.0, help="share of the original channels (default: 1)")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8, 16, 32, 64], help="pictures a step")
    parser.add_argument("--size", type=int, help="of the pictures whose memory is counted (default: the base's own)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--only-count", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, default=Path(), help="folder (default: this one)")
    arguments = parser.parse_args()
    card = torch.cuda.get_device_name() if arguments.device == "cuda" and not arguments.only_count else "none"
    about = {"card": card, "torch": torch.__version__, "width": arguments.width, "rounds": arguments.rounds}
    configs = arguments.configs or TINY / "base"
    tables = {
        "counted, of a step": counted(configs),
        "counted memory, GiB": memory(configs, arguments.batches, arguments.size),
    }
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
