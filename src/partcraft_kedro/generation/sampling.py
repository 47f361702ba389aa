"""Sampling pictures from prompts with part tokens."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from tqdm import tqdm

from partcraft_kedro.files import write_file
from partcraft_kedro.generation.plan import looked_path
from partcraft_kedro.generation.recipes import Recipe, write_picture
from partcraft_kedro.generation.schedulers import ALGORITHMS
from partcraft_kedro.images.tensors import from_unit
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import Base, picture_size
from partcraft_kedro.model.compilation import one_sentence_if_not_compiled
from partcraft_kedro.model.injection import Conditioning
from partcraft_kedro.model.memory import choose_batch
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.passes import as_many_as_fit
from partcraft_kedro.prompts import parse_tokens
from partcraft_kedro.randomness import torch_generator


@dataclass(frozen=True)
class Sampler:
    """Draws pictures with a model. All of a picture's noise depends on the seed and its name alone.

    part_names: for tokens such as `<head:101>`; on_step: called after each denoising step with the number of steps done
    and their count for the batch: what it raises ends the sampling; attention: a list that each batch adds the maps of
    its tokens to, means over steps, heads and layers, (n, M+1, h, w) float32, zero where a part has no token.
    """

    model: PartCraft
    options: SamplingOptions
    seed: int
    part_names: Sequence[str] = ()
    on_step: Callable[[int, int], None] | None = None
    attention: list[torch.Tensor] | None = None

    def batches(self, prompts: Sequence[str], names: Sequence[str]) -> Iterator[torch.Tensor]:
        """A picture for each prompt, in batches (n, 3, h, w) float in 0..1 on the CPU, each as large as the options say
        and memory holds.

        Raises UserError for a token that the adapter does not know, or if memory does not hold one picture.
        """
        variants = self.model.settings["variants"]
        checked = [parse_tokens(prompt, variants, self.part_names) for prompt in prompts]
        done, size = 0, min(self.options.batch_size, len(names))
        if size > 1:  # one is tried in any case
            size = choose_batch(self.model, size, guided=self.options.guidance_scale > 1)

        def sample(pictures: int) -> torch.Tensor:
            return self._batch(checked[done : done + pictures], names[done : done + pictures])

        while done < len(names):
            most = min(size, len(names) - done)
            with one_sentence_if_not_compiled("generate.sampling.compile"):
                batch, size = as_many_as_fit(sample, most, doing="sampling", remedy="give base.device=cpu")
            done += len(batch)
            yield batch

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[str], names: Sequence[str]) -> torch.Tensor:
        model, options, pipeline = self.model, self.options, self.model.pipeline
        unet, vae, own = pipeline.unet.config, pipeline.vae, model.own_scheduler
        pipeline.scheduler = (
            own
            if options.scheduler == "model"
            else DPMSolverMultistepScheduler.from_config(own.config, algorithm_type=ALGORITHMS[options.scheduler])
        )
        ids, columns = model.prompts.tokenize([*prompts, options.negative_prompt])
        shape = (unet.in_channels, unet.sample_size, unet.sample_size)
        generators = [torch_generator(self.seed, "picture", name) for name in names]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        with self._watching(columns[:-1]) as (on_step, maps):
            latents = pipeline(
                **_as_prompts(model.prompts.encode(ids), zeroed=not options.negative_prompt and self._zeroes_empty()),
                latents=noise.to(model.device),
                generator=generators,  # of what a scheduler adds in each step
                height=picture_size(pipeline),  # which SDXL is told
                width=picture_size(pipeline),
                num_inference_steps=options.steps,
                guidance_scale=options.guidance_scale,
                guidance_rescale=options.guidance_rescale,
                callback_on_step_end=on_step,
                output_type="latent",
            ).images
        # As ceilings are decoded: in float32.
        pictures = (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1).cpu()
        if self.attention is not None:  # not earlier: a batch that memory does not hold leaves no maps
            self.attention.append(torch.stack(maps).mean(0))
        return pictures

    def _zeroes_empty(self) -> bool:
        """Whether the base model was trained with zeros in the place of an empty prompt: SDXL was."""
        return bool(self.model.pipeline.config.get("force_zeros_for_empty_prompt"))

    @contextlib.contextmanager
    def _watching(self, columns: torch.Tensor) -> Iterator[tuple[Callable[..., dict], list[torch.Tensor]]]:
        """What diffusers is to call after each step, and the maps that this keeps, one a step.

        columns: of each part's token in its prompt, (n, M+1).
        """
        maps: list[torch.Tensor] = []
        watched = contextlib.nullcontext() if self.attention is None else AttentionCapture(self.model.pipeline.unet)

        def on_step(pipeline: Base, step: int, _: torch.Tensor, __: dict) -> dict:
            if capture is not None:
                maps.append(capture.maps()[-len(columns) :].cpu())
            if self.on_step is not None:
                self.on_step(step + 1, pipeline.num_timesteps)
            return {}

        with watched as capture:
            if capture is not None:
                # With guidance the negative prompt's half of the batch comes first.
                unwatched = torch.full_like(columns, -1) if self.options.guidance_scale > 1 else columns[:0]
                capture.watch(torch.cat([unwatched, columns]).to(self.model.device))
            yield on_step, maps


def _as_prompts(told: Conditioning, zeroed: bool) -> dict[str, torch.Tensor]:
    """Conditionings of prompts and, the last one, of what to lead away from, as diffusers takes them."""

    def apart(encoded: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
        negative = (encoded[-1:] * 0 if zeroed else encoded[-1:]).expand_as(encoded[:-1])
        return {name: encoded[:-1], f"negative_{name}": negative}

    pooled = {} if told.pooled is None else apart(told.pooled, "pooled_prompt_embeds")
    return apart(told.words, "prompt_embeds") | pooled


def sample_pictures(
    model: PartCraft,
    prompts: Sequence[str],
    names: Sequence[str],
    options: SamplingOptions,
    seed: int,
    part_names: Sequence[str] = (),
) -> torch.Tensor:
    """A picture for each prompt, all in one, (n, 3, h, w): see `Sampler`."""
    return torch.cat(list(Sampler(model, options, seed, part_names).batches(prompts, names)))


def write_pictures(
    sampler: Sampler, prompts: Sequence[str], names: Sequence[str], noises: Sequence[str], adapter: str, folder: Path
) -> None:
    """Sample in batches to `<folder>/<name>.png`, each with its recipe; batches whose pictures are all there are kept.

    Which token looked most at each place, as the number of its part, goes to `<folder>/looked/<name>.png`.
    Threads write one batch while the next one is sampled.
    noises: the name of each picture's initial noise; adapter: the fingerprint of the model's.
    """
    rows, size = range(len(names)), sampler.options.batch_size
    paths = [folder / f"{name}.png" for name in names]
    batches = [rows[start : start + size] for start in rows[::size]]
    missing = [row for batch in batches if not all(paths[row].exists() for row in batch) for row in batch]
    to_write = iter(missing)
    progress = tqdm(total=len(names), initial=len(names) - len(missing), desc="sample pictures", unit="picture")
    written: list[Future] = []
    maps: list[torch.Tensor] = []
    watching = replace(sampler, attention=maps)

    def write(image: Image.Image, looked: Image.Image, row: int) -> None:
        recipe = Recipe(
            prompt=prompts[row], seed=sampler.seed, noise=noises[row], sampling=sampler.options, adapter=adapter
        )
        write_file(looked_path(paths[row]), lambda partial: looked.save(partial, "PNG"))
        write_file(paths[row], lambda partial: write_picture(image, recipe, partial))  # last: it says that all is there

    with progress, ThreadPoolExecutor() as pool:
        for pictures in watching.batches([prompts[row] for row in missing], [noises[row] for row in missing]):
            images = to_images(pictures)
            looked = [Image.fromarray(most) for most in maps.pop().argmax(1).to(torch.uint8).numpy()]
            for future in written:
                future.result()  # a full disk ends the run here
            written = [pool.submit(write, *made, next(to_write)) for made in zip(images, looked, strict=True)]
            progress.update(len(images))
        for future in written:
            future.result()


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """(n, 3, h, w) float in 0..1 → PIL pictures."""
    return [Image.fromarray(array) for array in from_unit(pictures)]
