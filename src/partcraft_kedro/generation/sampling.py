"""Sampling pictures from prompts with part tokens."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from tqdm import tqdm

from partcraft_kedro.images.tensors import from_unit
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.prompts import parse_tokens
from partcraft_kedro.randomness import torch_generator
from partcraft_kedro.stages import write_file


@torch.inference_mode()
def sample_pictures(
    model: PartCraft,
    prompts: Sequence[str],
    names: Sequence[str],
    options: SamplingOptions,
    seed: int,
    part_names: Sequence[str] = (),
) -> torch.Tensor:
    """Sample one picture for each prompt, (n, 3, h, w) float in 0..1 on the CPU.

    A picture's initial noise depends on (seed, its name) alone. part_names: for tokens such as `<head:101>`.
    Raises UserError for a token that the adapter does not know.
    """
    pipeline, unet = model.pipeline, model.pipeline.unet.config
    own = model.own_scheduler
    pipeline.scheduler = own if options.sampler == "model" else DPMSolverMultistepScheduler.from_config(own.config)
    checked = [parse_tokens(prompt, model.settings["variants"], part_names) for prompt in prompts]
    ids = model.prompts.tokenize([*checked, options.negative_prompt])[0]
    shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    noise = torch.stack([torch.randn(shape, generator=torch_generator(seed, "picture", name)) for name in names])
    with model.autocast():
        words = model.prompts.encode(ids)
        drawn = pipeline(
            prompt_embeds=words[:-1],
            negative_prompt_embeds=words[-1:].expand(len(checked), -1, -1),
            latents=noise.to(model.device),
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            guidance_rescale=options.guidance_rescale,
            output_type="pt",
        )
    return drawn.images.float().cpu()


def write_pictures(
    model: PartCraft, prompts: Sequence[str], names: Sequence[str], options: SamplingOptions, seed: int, folder: Path
) -> None:
    """Sample in batches to `<folder>/<name>.png`; batches whose pictures are all there are kept.

    Threads write one batch while the next one is sampled.
    """
    written: list[Future] = []
    with ThreadPoolExecutor() as pool:
        for start in tqdm(range(0, len(names), options.batch_size), desc="sample pictures", unit="batch"):
            of_batch = slice(start, start + options.batch_size)
            paths = [folder / f"{name}.png" for name in names[of_batch]]
            if all(path.exists() for path in paths):
                continue
            pictures = to_images(sample_pictures(model, prompts[of_batch], names[of_batch], options, seed))
            for future in written:
                future.result()  # a full disk ends the run here
            written = [
                pool.submit(write_file, path, picture.save) for path, picture in zip(paths, pictures, strict=True)
            ]
        for future in written:
            future.result()


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """(n, 3, h, w) float in 0..1 → PIL pictures."""
    return [Image.fromarray(array) for array in from_unit(pictures)]
