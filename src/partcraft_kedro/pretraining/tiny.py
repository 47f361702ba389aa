"""Putting tiny together: half precision, published layouts, a model card with what was measured."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from transformers import BitImageProcessorPil, Dinov2Model

from partcraft_kedro.evaluation.judge import Judge
from partcraft_kedro.evaluation.scores import through_vae
from partcraft_kedro.images import creatures
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.pretraining.pictures import caption
from partcraft_kedro.randomness import numpy_generator, torch_generator

_CHECKED = 64  # pictures behind each figure of the model card


def save_tiny(pipeline: StableDiffusionPipeline, vit: Dinov2Model, judge: Judge, folder: Path) -> None:
    """Write `base/` (diffusers), `feature_extractor/` (transformers) and `judge/`, float16 safetensors."""
    pipeline.to(torch.float16).save_pretrained(folder / "base")
    pipeline.to(torch.float32)
    vit.half().save_pretrained(folder / "feature_extractor")
    vit.float()
    BitImageProcessorPil(
        do_center_crop=True,
        crop_size={"height": 128, "width": 128},
        size={"shortest_edge": 128},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder / "feature_extractor")
    (folder / "judge").mkdir()
    judge.save(folder / "judge" / "judge.safetensors")


@torch.inference_mode()
def measure_tiny(pipeline: StableDiffusionPipeline, judge: Judge, seed: int) -> dict[str, float]:
    """How good tiny is on creatures it has not seen: the figures of the model card.

    judge_on_drawings, judge_on_vae, judge_on_generated: the share of named looks that the judge finds in fresh
    drawings, in the same through the VAE, and in pictures generated from their captions; vae_psnr in dB.
    """
    rng = numpy_generator(seed, "measure tiny")
    drawn = [(creatures.random_creature(rng), creatures.random_pose(rng)) for _ in range(_CHECKED)]
    pictures = np.stack([creatures.draw(creature, pose)[0] for creature, pose in drawn])
    again = through_vae(pipeline.vae, pictures)
    captions = [describe(creature) for creature, _ in drawn]
    noise = torch.randn((_CHECKED, 4, 64, 64), generator=torch_generator(seed, "measure tiny"))
    generated = np.concatenate(
        [
            pipeline(
                captions[start : start + 16],
                latents=noise[start : start + 16],
                num_inference_steps=20,
                guidance_scale=3.0,
                guidance_rescale=0.5,
                output_type="np",
            ).images
            for start in range(0, _CHECKED, 16)
        ]
    )
    found = {}
    for name, shown in (("drawings", pictures), ("vae", again), ("generated", (generated * 255).astype(np.uint8))):
        seen = judge.attributes(to_unit(shown))
        hits = [
            row[label] == creature.attribute(label)
            for row, (creature, _) in zip(seen, drawn, strict=True)
            for label in creatures.LABELS
            if row[label] is not None
        ]
        found[f"judge_on_{name}"] = float(np.mean(hits))
    error = ((pictures.astype(float) - again) ** 2).mean()
    return {**found, "vae_psnr": float(10 * np.log10(255**2 / error))}


def describe(creature: creatures.Creature) -> str:
    """The full caption of a creature, all parts named."""
    parts = ", ".join(f"{creature.attribute(part)} {part}" for part in creatures.PARTS)
    return f"a photo of a bird, {parts}, on {creature.background}"


def write_card(folder: Path, measured: dict[str, float], trained: dict[str, str]) -> None:
    """README.md and measured.json beside the weights."""
    (folder / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
    figures = "\n".join(f"| {name} | {value:.3f} |" for name, value in measured.items())
    schooling = "\n".join(f"| {network} | {how} |" for network, how in trained.items())
    (folder / "README.md").write_text(
        f"""# tiny

A complete small Stable Diffusion, a small vision transformer in DINOv2's architecture, and a judge, made by this
project's `pretrain` pipeline from drawings of its own creature generator. It stands in for Stable Diffusion 1.5 and
DINOv2 where neither fits, and draws nothing but creatures. No photograph and no other model took part.

| network | how it was trained |
|---|---|
{schooling}

Captions name looks in words (`{_example_caption()}`); none has a part token. Pictures that share the
(head, wing) or (body, tail) looks of one of the default dataset's 20 species were kept out.

| measured on {_CHECKED} fresh creatures | |
|---|---|
{figures}

`judge_on_*` is the share of looks (colour and pattern both, background kind included) that the judge finds as
captioned; picking looks at random would give 0.06 for a part and 0.13 for the background.
"""
    )


def _example_caption() -> str:
    rng = numpy_generator(0, "model card")
    attributes = np.array([[2, 0], [0, 1], [3, 0], [1, 2], [4, 0], [5, 0]], np.uint8)
    return caption(attributes, np.ones(6, bool), rng)
