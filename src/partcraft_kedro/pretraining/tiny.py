"""Putting tiny together: half precision, published layouts, a model card with what was measured."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import BitImageProcessorPil, Dinov2Model

from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.drawn.outlines import Outlines
from partcraft_kedro.drawn.shapes import SIZE
from partcraft_kedro.drawn.world import World
from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.evaluation.scores import through_vae
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.pretraining.text_to_image import draw_samples
from partcraft_kedro.randomness import numpy_generator, torch_generator

_CHECKED = 64  # pictures of each world behind each figure of the model card


def save_tiny(pipeline: StableDiffusionPipeline, vit: Dinov2Model, judge: Judge, folder: Path, seed: int) -> None:
    """Write `base/` (diffusers), `feature_extractor/` (transformers) and `judge/`, float16 safetensors, and
    `samples.png`."""
    pipeline.to(torch.float16).save_pretrained(folder / "base")
    pipeline.to(torch.float32)
    vit.half().save_pretrained(folder / "feature_extractor")
    vit.float()
    BitImageProcessorPil(
        do_center_crop=True,
        crop_size={"height": SIZE, "width": SIZE},
        size={"shortest_edge": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder / "feature_extractor")
    (folder / "judge").mkdir()
    judge.save(folder / "judge" / "judge.safetensors")
    Image.fromarray(draw_samples(pipeline, seed)).save(folder / "samples.png")


def measure_tiny(pipeline: StableDiffusionPipeline, judge: Judge, seed: int) -> dict[str, dict[str, float]]:
    """How good tiny is in each world on subjects that it has not seen: the figures of the model card.

    looks_*, shape_*: the share of named looks that the judge finds, and of pictures whose outlines pass, in fresh
    drawings, in the same through the VAE, and in pictures generated from their captions; vae_psnr in dB.
    """
    return {name: _measure_world(world, pipeline, judge, seed) for name, world in WORLDS.items()}


@torch.inference_mode()
def _measure_world(world: World, pipeline: StableDiffusionPipeline, judge: Judge, seed: int) -> dict[str, float]:
    rng = numpy_generator(seed, "measure tiny", world.name)
    subjects = [world.random_subject(rng) for _ in range(_CHECKED)]
    pictures = np.stack([world.draw(subject, world.random_pose(rng)).picture for subject in subjects])
    again = through_vae(pipeline.vae, pictures)
    noise = torch.randn((_CHECKED, 4, 64, 64), generator=torch_generator(seed, "measure tiny", world.name))
    captions = [world.describe(subject) for subject in subjects]
    generated = np.concatenate(
        [
            pipeline(
                captions[start : start + 16],
                latents=noise[start : start + 16],
                num_inference_steps=20,
                guidance_scale=2.0,
                guidance_rescale=0.5,
                output_type="np",
            ).images
            for start in range(0, _CHECKED, 16)
        ]
    )
    outlines = Outlines.of_drawings(world, judge)
    found: dict[str, float] = {}
    made = (generated * 255).round().astype(np.uint8)
    for name, shown in (("drawings", pictures), ("vae", again), ("generated", made)):
        seen = judge.attributes(world, to_unit(shown))
        hits = [
            row[label] == subject[label]
            for row, subject in zip(seen, subjects, strict=True)
            for label in world.labels
            if row[label] is not None
        ]
        found[f"looks_of_{name}"] = float(np.mean(hits))
        found[f"shape_of_{name}"] = float(outlines.passes(judge.outlines(world, to_unit(shown))).mean())
    error = ((pictures.astype(float) - again) ** 2).mean()
    return {**found, "vae_psnr": float(10 * np.log10(255**2 / error))}


def write_card(
    folder: Path, measured: dict[str, dict[str, float]], trained: dict[str, str], *, spent: str, fingerprint: str
) -> None:
    """README.md and measured.json beside the weights. spent: how long it took, and on what; fingerprint: of the options
    that it was made with."""
    (folder / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
    rows = next(iter(measured.values()))
    figures = "\n".join(
        f"| {row} | {' | '.join(f'{of_world[row]:.3f}' for of_world in measured.values())} |" for row in rows
    )
    schooling = "\n".join(f"| {network} | {how} |" for network, how in trained.items())
    example = _example()
    (folder / "README.md").write_text(
        f"""# tiny

A complete small Stable Diffusion, a small vision transformer in DINOv2's architecture, and a judge, made by this
project's `pretrain` pipeline from drawings of its own worlds: {", ".join(WORLDS)}. It stands in for Stable Diffusion
1.5 and DINOv2 where neither fits, and draws nothing else. No photograph and no other model took part.

`kedro run --pipelines=pretrain` makes it again; these weights took {spent}. Fingerprint of the options:
`{fingerprint}`.

![Samples](samples.png)

Pictures of captions that name every part, such as `{example}`.

| network | how it was trained |
|---|---|
{schooling}

Captions name looks in words; none has a part token, and a part or the background is often left out.
Subjects whose combination of looks the default datasets show were kept out.

| measured on {_CHECKED} fresh subjects of each world | {" | ".join(measured)} |
|---|{"---|" * len(measured)}
{figures}

`looks_of_*` is the share of looks (style and colour both, the background's place included) that the judge finds as
captioned; picking looks at random would give 0.06 to 0.11 for a part, 0.13 for the background. `shape_of_*` is the
share of pictures in which the judge finds every part in as many pieces, of such sizes, and its details where drawings
have them.
"""
    )


def describe_device(device: str) -> str:
    """What a device is, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a {device.upper()}"


def _example() -> str:
    """A full caption."""
    world = next(iter(WORLDS.values()))
    return world.describe(world.random_subject(numpy_generator(0, "model card")))
