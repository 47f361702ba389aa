"""Every benchmark beside its baseline, in one process, alternately: what `make bench` runs.

    python benchmarks/suite.py [--rounds 5] [--only training sampling] [--output docs]

On the CPU, with tiny and drawn creatures; nothing is needed from elsewhere. Writes benchmarks.json, benchmarks.md and
benchmarks.png. Run nothing beside it.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler
from safetensors.torch import save_file

from measure import Result, side_by_side
from partcraft_kedro.assets import TINY, half_precision
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import FeatureShards, write_shards
from partcraft_kedro.generation.sampling import write_pictures
from partcraft_kedro.images.records import draw_creatures, load_pictures
from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import load_base
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.parts.discovery import discover_parts
from partcraft_kedro.parts.kmeans import cosine_kmeans
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.prompts import compose_prompt
from partcraft_kedro.randomness import numpy_generator, torch_generator
from partcraft_kedro.training.cache import TrainingCache, write_latents
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.memory import step_memory
from partcraft_kedro.training.step import Batch, draw_batch, training_loss
from published_step import Pictures, PublishedStep, encode

SIZE, PARTS, VARIANTS, BATCH = 128, 5, 16, 8
TRAINING = TrainOptions(
    method="partcraft", steps=1, batch_size=BATCH, micro_batch=None, gradient_checkpointing=False, compile=False,
    learning_rate=6e-3, weight_decay=0.01, rank=4, lora_layers="cross", template_probability=0.0, snr_gamma=None,
    max_gradient_norm=1.0, checkpoint_every=1000, log_every=10, sample_every=1000, seed=0,
)  # fmt: skip
SAMPLING = SamplingOptions(
    steps=20, sampler="dpm-solver++", guidance=2.0, guidance_rescale=0.5, negative_prompt="", batch_size=16
)


@dataclass(frozen=True)
class World:
    """Creatures, their parts, and where they lie."""

    folder: Path
    paths: list[Path]
    predictor: PartPredictor
    cache: TrainingCache


def make_world(folder: Path) -> World:
    """Ten species, twelve pictures each, with features, parts, codes and latents."""
    records = draw_creatures(folder / "raw", folder, species=10, pictures_per_species=12, test_fraction=0.2, seed=0)
    paths = [folder / path for path in records["path"]]
    extractor = FeatureExtractor("tiny")
    write_shards(extractor, paths, folder / "features", batch_size=32, shard_size=64, workers=0)
    predictor = discover_parts(
        FeatureShards(folder / "features"), discovery="plain", parts=PARTS, variants=VARIANTS, starts=2, iterations=30,
        least_patches=2, seed=0, extractor={"model": "tiny"},
    )  # fmt: skip
    pictures = load_pictures(paths, SIZE)
    label_maps, codes = predictor.segment(pictures)
    write_latents(load_base("tiny").vae, paths, SIZE, folder / "latents")
    cache = TrainingCache.load(folder / "latents", label_maps, list(codes))
    # The published step finds the parts of the flipped picture; so that both see the same masks, so does this cache.
    flipped = torch.from_numpy(predictor.segment(np.ascontiguousarray(pictures[:, :, ::-1]))[0])
    cache = TrainingCache(cache.mean, cache.std, torch.stack([cache.label_maps[0], flipped]), cache.codes)
    return World(folder, paths, predictor, cache)


def fresh_model(precision: str) -> PartCraft:
    return PartCraft.create(
        "tiny", "cpu", precision, variants=[VARIANTS] * (PARTS + 1), unet="lora", rank=4, lora_layers="cross",
        bottleneck_layers=2, seed=0,
    )  # fmt: skip


def pictures_of(world: World, step: int) -> Pictures:
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


def optimise(model: PartCraft, *, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.trainable().values(), lr=1e-4, fused=fused)


def bench_training(world: World, rounds: int) -> tuple[list[Result], dict]:
    """One optimizer step of eight pictures: published design, plain diffusers practice, ours."""
    step = 0  # all ways see the same draws
    ways, losses = {}, {}

    def published() -> int:
        loss = step_of_published(draw_batch(published_model, world.cache, TRAINING, step))
        losses["published"] = loss
        published_optimizer.step()
        published_optimizer.zero_grad()
        return BATCH

    published_model = fresh_model("float32")
    published_model.pipeline.unet.to(memory_format=torch.contiguous_format)
    published_optimizer = optimise(published_model, fused=False)
    of_published = PublishedStep(published_model, world.predictor, TRAINING)

    def step_of_published(batch: Batch) -> float:
        return of_published(batch, pictures_of(world, step))

    def plain(precision: str):
        model = fresh_model(precision)
        model.pipeline.unet.to(memory_format=torch.contiguous_format)
        optimizer, schedule = optimise(model, fused=False), DDPMScheduler.from_config(model.own_scheduler.config)
        capture = AttentionCapture(model.pipeline.unet)

        def run() -> int:
            batch = draw_batch(model, world.cache, TRAINING, step)
            latents = encode(model, pictures_of(world, step))
            loss = training_loss(model, capture, schedule, Batch(**vars(batch) | {"latents": latents}), TRAINING)[
                "loss"
            ]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[f"plain, {precision}"] = loss.item()
            return BATCH

        return run

    def ours(precision: str, *, compiled: bool = False):
        model = fresh_model(precision)
        optimizer = optimise(model, fused=True)
        options = TRAINING.model_copy(update={"compile": compiled})
        gradient = Gradient(model, AttentionCapture(model.pipeline.unet), options)
        name = "ours, compiled" if compiled else f"ours, {precision}"

        def run() -> int:
            found = gradient(draw_batch(model, world.cache, options, step))
            optimizer.step()
            optimizer.zero_grad()
            losses[name] = found["loss"].item()
            return BATCH

        return run

    ways["published design, float32"] = published
    ways["plain diffusers practice, float32"] = plain("float32")
    ways["ours, float32"] = ours("float32")
    if half_precision("cpu") is torch.bfloat16:
        ways["plain diffusers practice, bfloat16"] = plain("bfloat16")
        ways["ours, bfloat16"] = ours("bfloat16")
    ways["ours, compiled"] = ours("auto", compiled=True)
    with of_published:
        for way in ways.values():  # all from the same weights, on the same draws
            way()
        first = dict(losses)
        results = side_by_side("training step", "picture", ways, rounds=rounds, warm_up=False)
    print("losses of the first step:", {name: round(loss, 5) for name, loss in first.items()})
    return results, {"losses of the first step": first}


def bench_features(world: World, rounds: int) -> tuple[list[Result], dict]:
    """Pictures on disk to shards of features, beside a plain transformers loop."""
    from PIL import Image
    from transformers import AutoImageProcessor, Dinov2Model

    folder = str(TINY / "feature_extractor")
    processor, network = (
        AutoImageProcessor.from_pretrained(folder),
        Dinov2Model.from_pretrained(folder, dtype=torch.float32),
    )
    extractor = FeatureExtractor("tiny")

    @torch.inference_mode()
    def plain() -> int:
        for start in range(0, len(world.paths), 32):
            pictures = [Image.open(path).convert("RGB") for path in world.paths[start : start + 32]]
            network(**processor(pictures, return_tensors="pt"), output_hidden_states=True).hidden_states[-1][
                :, 1:
            ].half()
        return len(world.paths)

    def ours() -> int:
        with tempfile.TemporaryDirectory() as shards:
            write_shards(extractor, world.paths, Path(shards), batch_size=32, shard_size=64, workers=0)
        return len(world.paths)

    return side_by_side(
        "feature extraction", "picture", {"plain transformers loop": plain, "ours": ours}, rounds=rounds
    ), {}


def bench_kmeans(world: World, rounds: int) -> tuple[list[Result], dict]:
    """Eight clusters of 100,000 points of 96 numbers, beside scikit-learn's k-means on unit vectors."""
    from sklearn.cluster import KMeans

    points = torch.randn(100_000, 96, generator=torch.Generator().manual_seed(0))
    points += 3 * torch.randn(8, 96, generator=torch.Generator().manual_seed(1))[torch.arange(100_000) % 8]

    def sklearn() -> int:
        KMeans(8, n_init=4, max_iter=50, random_state=0).fit(F.normalize(points, dim=-1).numpy())
        return len(points)

    def ours() -> int:
        cosine_kmeans(lambda: points.split(8192), 8, starts=4, iterations=50, seed=0, purpose="benchmark")
        return len(points)

    return side_by_side(
        "k-means", "point", {"scikit-learn, unit vectors": sklearn, "ours, cosine": ours}, rounds=rounds
    ), {}


def bench_latents(world: World, rounds: int) -> tuple[list[Result], dict]:
    """Pictures on disk to the posterior of both flips, beside one picture at a time."""
    vae: AutoencoderKL = load_base("tiny").vae

    @torch.inference_mode()
    def one_by_one() -> int:
        for path in world.paths:
            pixels = load_pictures([path], SIZE)
            for flipped in (pixels, np.ascontiguousarray(pixels[:, :, ::-1])):
                vae.encode(to_vae(flipped)).latent_dist.mean.half()
        return len(world.paths)

    def ours() -> int:
        with tempfile.TemporaryDirectory() as folder:
            write_latents(vae, world.paths, SIZE, Path(folder))
        return len(world.paths)

    size = sum(shard.stat().st_size for shard in (world.folder / "latents").glob("*.safetensors"))
    facts = {"latent cache, bytes a picture": size / len(world.paths)}
    return side_by_side("latent cache", "picture", {"one at a time": one_by_one, "ours": ours}, rounds=rounds), facts


def bench_sampling(world: World, rounds: int) -> tuple[list[Result], dict]:
    """Pictures on disk from codes, beside the authors' way: one at a time, 30 steps of the default sampler."""
    prompts = [compose_prompt(code) for code in world.cache.codes[:16]]
    names = [str(i) for i in range(16)]

    def make(precision: str, **changes):
        model = fresh_model(precision)
        if changes.get("sampler") == "model":  # as Stable Diffusion 1.5 comes
            leading = {"skip_prk_steps": True, "timestep_spacing": "leading"}
            model.own_scheduler = PNDMScheduler.from_config(model.own_scheduler.config, **leading)
        options = SAMPLING.model_copy(update=changes)
        count = 16 if options.batch_size > 1 else 4

        def run() -> int:
            with tempfile.TemporaryDirectory() as folder:
                write_pictures(model, prompts[:count], names[:count], options, 0, Path(folder))
            return count

        return run

    ways = {
        "published: one at a time, 30 steps, PNDM": make("float32", steps=30, batch_size=1, sampler="model"),
        "one at a time, 20 steps, DPM-Solver++": make("float32", batch_size=1),
        "ours, float32": make("float32"),
    }
    if half_precision("cpu") is torch.bfloat16:
        ways["ours, bfloat16"] = make("bfloat16")
    return side_by_side("sampling", "picture", ways, rounds=rounds), {}


def bench_evaluation(world: World, rounds: int) -> tuple[list[Result], dict]:
    """Pictures on disk to codes, beside decoding and predicting one picture at a time."""
    from partcraft_kedro.images.records import load_ahead

    def one_by_one() -> int:
        for path in world.paths:
            world.predictor.predict(load_pictures([path], SIZE))
        return len(world.paths)

    def ours() -> int:
        batches = [world.paths[start : start + 32] for start in range(0, len(world.paths), 32)]
        for pictures in load_ahead(batches, SIZE):
            world.predictor.predict(pictures)
        return len(world.paths)

    return side_by_side("evaluation", "picture", {"one at a time": one_by_one, "ours": ours}, rounds=rounds), {}


def measure_scaling(world: World, rounds: int) -> dict[str, pd.DataFrame]:
    """Seconds and memory of a step against its batch and its parts; seconds of drawing a batch against the dataset."""
    model = fresh_model("auto")
    tables = {}
    with AttentionCapture(model.pipeline.unet) as capture:
        rows = []
        for batch_size in (1, 2, 4, 8, 16, 32):
            options = TRAINING.model_copy(update={"batch_size": batch_size})
            gradient = Gradient(model, capture, options)
            seconds = []
            for step in range(rounds + 1):
                begin = time.perf_counter()
                gradient(draw_batch(model, world.cache, options, step))
                seconds.append(time.perf_counter() - begin)
            memory = step_memory(model, capture, batch_size)
            rows.append({"pictures a step": batch_size, "seconds": np.median(seconds[1:]), "MiB": memory / 2**20})
        tables["batch"] = pd.DataFrame(rows)
    rows = []
    for parts in (2, 5, 10, 20):
        variants = [VARIANTS] * (parts + 1)
        more = PartCraft.create(
            "tiny", "cpu", variants=variants, rank=4, unet="lora", lora_layers="cross", bottleneck_layers=2, seed=0
        )
        codes = np.tile(np.arange(parts + 1) % VARIANTS, (len(world.cache), 1))
        cache = TrainingCache(world.cache.mean, world.cache.std, world.cache.label_maps, codes)
        with AttentionCapture(more.pipeline.unet) as capture:
            gradient, seconds = Gradient(more, capture, TRAINING), []
            for step in range(rounds + 1):
                begin = time.perf_counter()
                gradient(draw_batch(more, cache, TRAINING, step))
                seconds.append(time.perf_counter() - begin)
        rows.append({"parts": parts, "seconds": np.median(seconds[1:])})
    tables["parts"] = pd.DataFrame(rows)
    rows = []
    for pictures in (100, 1_000, 10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            shard = {"mean": torch.zeros(2, 32, 4, 64, 64).half(), "std": torch.zeros(2, 32, 4, 64, 64).half()}
            save_file(shard, Path(folder) / "latents-0000000.safetensors")
            for start in range(32, pictures, 32):  # the same shard under as many names
                (Path(folder) / f"latents-{start:07d}.safetensors").hardlink_to(
                    Path(folder) / "latents-0000000.safetensors"
                )
            codes = np.tile(np.arange(PARTS + 1), (pictures, 1))
            begin = time.perf_counter()
            cache = TrainingCache.load(Path(folder), np.zeros((pictures, 16, 16), np.uint8), list(codes))
            opened, seconds = time.perf_counter() - begin, []
            for step in range(20):
                begin = time.perf_counter()
                draw_batch(model, cache, TRAINING, step)
                seconds.append(time.perf_counter() - begin)
            rows.append({"pictures": pictures, "seconds to open": opened, "seconds to draw 8": np.median(seconds)})
    tables["dataset"] = pd.DataFrame(rows)
    return tables


def draw_plot(tables: dict[str, pd.DataFrame], path: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    batch, parts, dataset = tables["batch"], tables["parts"], tables["dataset"]
    axes[0].plot(batch["pictures a step"], batch["seconds"], "o-")
    axes[0].set(title="a step against its pictures", xlabel="pictures", ylabel="seconds")
    axes[1].plot(batch["pictures a step"], batch["MiB"], "o-")
    axes[1].set(title="memory of a step, from shapes", xlabel="pictures", ylabel="MiB")
    axes[2].plot(parts["parts"], parts["seconds"], "o-")
    axes[2].set(title="a step of 8 against M", xlabel="parts", ylabel="seconds")
    for column in ("seconds to open", "seconds to draw 8"):
        axes[3].plot(dataset["pictures"], dataset[column], "o-", label=column)
    axes[3].set(title="the cache against the dataset", xlabel="pictures", xscale="log", yscale="log")
    axes[3].legend(frameon=False, fontsize=8)
    for axis in axes[:3]:
        axis.set(xlim=(0, None), ylim=(0, 1.2 * axis.lines[0].get_ydata().max()))
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def write_report(results: list[list[Result]], facts: dict, tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """benchmarks.json, and the same as Markdown."""
    about = {
        "processor threads": torch.get_num_threads(),
        "bfloat16 arithmetic": half_precision("cpu") is torch.bfloat16,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    rows = [result.to_row(of_subject[0]) for of_subject in results for result in of_subject]
    scaling = {name: table.to_dict("records") for name, table in tables.items()}
    content = {"machine": about, "results": rows, "facts": facts, "scaling": scaling}
    (folder / "benchmarks.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = ["# Benchmarks", "", "Written by `make bench`: tiny and drawn creatures, on the CPU.", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += [
        "",
        "| | way | items a second | lowest – highest | peak memory, MiB | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{min(row['rates']):.2f} – {max(row['rates']):.2f}"
        ways = f"| {row['subject']} | {row['way']} | {row['median']:.2f} {row['item']}s | {spread}"
        lines.append(f"{ways} | {row['peak']:.0f} | {row['ratio']:.2f}× |")
    lines += [
        "",
        "Ways of one subject ran alternately in one process; figures are medians; the first way is the baseline.",
    ]
    lines += ["Peak memory is what a way took above what the process had: little, where memory that an earlier"]
    lines += ["round had been given served again.", ""]
    for name, value in facts.items():
        lines.append(f"- {name}: {value}")
    lines += ["", "## Scaling", "", "![Scaling](benchmarks.png)", ""]
    for table in tables.values():
        lines += ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
        lines += ["| " + " | ".join(f"{value:.4g}" for value in row) + " |" for row in table.itertuples(index=False)]
        lines.append("")
    (folder / "benchmarks.md").write_text("\n".join(lines))


BENCHMARKS = {
    "features": bench_features,
    "kmeans": bench_kmeans,
    "latents": bench_latents,
    "training": bench_training,
    "sampling": bench_sampling,
    "evaluation": bench_evaluation,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="no report is written then"
    )
    parser.add_argument("--output", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        world = make_world(Path(name))
        results, facts = [], {}
        for benchmark in arguments.only:
            found, known = BENCHMARKS[benchmark](world, arguments.rounds)
            results.append(found)
            facts |= known
        if arguments.only == list(BENCHMARKS):
            tables = measure_scaling(world, arguments.rounds)
            draw_plot(tables, arguments.output / "benchmarks.png")
            write_report(results, facts, tables, arguments.output)
            print(f"Written to {arguments.output}/benchmarks.md")


if __name__ == "__main__":
    main()
