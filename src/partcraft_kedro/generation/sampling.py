"""Sampling pictures from prompts with part tokens."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from tqdm import tqdm

from partcraft_kedro.files import write_file
from partcraft_kedro.images.tensors import from_unit
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.passes import as_many_as_fit
from partcraft_kedro.prompts import parse_tokens
from partcraft_kedro.randomness import torch_generator


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
    Raises UserError for a token that the adapter does not know, or if memory does not hold one picture.
    """
    return torch.cat(list(_sample_batches(model, prompts, names, options, seed, part_names)))


def _sample_batches(
    model: PartCraft,
    prompts: Sequence[str],
    names: Sequence[str],
    options: SamplingOptions,
    seed: int,
    part_names: Sequence[str] = (),
) -> Iterator[torch.Tensor]:
    """`sample_pictures`, one batch after the other, each as large as the options say and memory holds."""
    pipeline, unet, vae, own = model.pipeline, model.pipeline.unet.config, model.pipeline.vae, model.own_scheduler
    pipeline.scheduler = own if options.scheduler == "model" else DPMSolverMultistepScheduler.from_config(own.config)
    checked = [parse_tokens(prompt, model.settings["variants"], part_names) for prompt in prompts]
    shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    done, size = 0, options.batch_size

    @torch.inference_mode()
    def sample(pictures: int) -> torch.Tensor:
        of_batch = slice(done, done + pictures)
        ids = model.prompts.tokenize([*checked[of_batch], options.negative_prompt])[0]
        noise = [torch.randn(shape, generator=torch_generator(seed, "picture", name)) for name in names[of_batch]]
        with model.autocast():
            words = model.prompts.encode(ids)
            latents = pipeline(
                prompt_embeds=words[:-1],
                negative_prompt_embeds=words[-1:].expand(pictures, -1, -1),
                latents=torch.stack(noise).to(model.device),
                num_inference_steps=options.steps,
                guidance_scale=options.guidance_scale,
                guidance_rescale=options.guidance_rescale,
                output_type="latent",
            ).images
        # As ceilings are decoded: in float32.
        return (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1).cpu()

    while done < len(names):
        most = min(size, len(names) - done)
        batch, size = as_many_as_fit(sample, most, doing="sampling", remedy="give base.device=cpu")
        done += len(batch)
        yield batch


def write_pictures(
    model: PartCraft, prompts: Sequence[str], names: Sequence[str], options: SamplingOptions, seed: int, folder: Path
) -> None:
    """Sample in batches to `<folder>/<name>.png`; batches whose pictures are all there are kept.

    Threads write one batch while the next one is sampled.
    """
    rows, size = range(len(names)), options.batch_size
    paths = [folder / f"{name}.png" for name in names]
    batches = [rows[start : start + size] for start in rows[::size]]
    missing = [row for batch in batches if not all(paths[row].exists() for row in batch) for row in batch]
    to_write = iter([paths[row] for row in missing])
    sampled = _sample_batches(model, [prompts[row] for row in missing], [names[row] for row in missing], options, seed)
    progress = tqdm(total=len(names), initial=len(names) - len(missing), desc="sample pictures", unit="picture")
    written: list[Future] = []
    with progress, ThreadPoolExecutor() as pool:
        for pictures in sampled:
            images = to_images(pictures)
            for future in written:
                future.result()  # a full disk ends the run here
            written = [pool.submit(write_file, next(to_write), image.save) for image in images]
            progress.update(len(images))
        for future in written:
            future.result()


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """(n, 3, h, w) float in 0..1 → PIL pictures."""
    return [Image.fromarray(array) for array in from_unit(pictures)]
