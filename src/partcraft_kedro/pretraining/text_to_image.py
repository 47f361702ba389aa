"""tiny's text encoder and U-Net: a small Stable Diffusion that learns drawn worlds from attribute captions.

What makes captions bind and edges sharp within an hour or two on a laptop's processor:

- Token embeddings start with standard deviation 1 (CLIP's .02 makes all captions look alike), and the text encoder
  first learns to gather each noun's adjectives.
- Each location's attention is drawn to the noun of the part that it shows. All tokens compete, the start token too:
  a loss on the nouns' shares alone lets the start token swallow the attention, and the adjectives are never read.
- The 16×16 features of the second decoder block must name what each location shows (after REPA, Yu et al. 2024,
  arXiv:2410.06940, with exact labels in the place of a pretrained encoder).
- v-prediction on a schedule that ends in pure noise (Lin et al. 2023, arXiv:2305.08891) and is stronger than Stable
  Diffusion's: a part covers hundreds of latents, whose mean shows its colour through all but the strongest noise,
  and only where it does not is the caption needed (Hoogeboom et al. 2023, arXiv:2301.11093, shift for the same reason).
- The squared error counts small parts, and details such as an eye, for more than their area; in the last steps it does
  not. A weight that depends on what the picture shows draws what is predicted towards pictures that show what weighs
  more: legs and beaks came out larger than any drawing's in half of all pictures.
- The timesteps of a batch lie in even strata, so that no step sees strong noise alone.
- As Stable Diffusion itself it learns at half the resolution first, at a quarter of the price a sample.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import nn
from tqdm import tqdm
from transformers import CLIPTextModel

from partcraft_kedro.drawn.worlds import LABELS, WORLDS
from partcraft_kedro.images.tensors import from_vae, to_vae
from partcraft_kedro.model.attention import AttentionCapture, attend_in_float32
from partcraft_kedro.pretraining.examples import CaptionedBatch, Captions, Examples
from partcraft_kedro.pretraining.fitting import fit
from partcraft_kedro.pretraining.networks import (
    NounReader,
    TextToImage,
    build_scheduler,
    build_text_encoder,
    build_unet,
)
from partcraft_kedro.pretraining.pictures import PretrainingPictures
from partcraft_kedro.pretraining.tokenizer import build_tokenizer
from partcraft_kedro.randomness import numpy_generator, torch_generator

_GROUNDING = 0.1  # weight of the grounding loss
_READING = 0.1  # weight of the reading loss
_HELD_BACK = 256  # pictures kept for the gauge


@dataclass(frozen=True)
class Schooling:
    """How long text encoder and U-Net learn, and where.

    text_steps: of the text encoder alone; coarse, fine and plain: (steps, pictures a step) at half and at full
    resolution with small parts weighing more, and at full resolution with all locations weighing the same;
    precision: what frozen activations are computed in, float32 or bfloat16.
    """

    text_steps: int
    coarse: tuple[int, int]
    fine: tuple[int, int]
    plain: tuple[int, int]
    seed: int
    device: str
    precision: torch.dtype


def train_text_encoder(text_encoder: CLIPTextModel, captions: Captions, folder: Path, *, steps: int, seed: int) -> None:
    """Teach the text encoder to gather each part's style and colour at its noun, as CLIP does before diffusion.

    Cross-entropy of a linear reading of the noun's last hidden state.
    """
    torch.manual_seed(seed)
    reader = NounReader(text_encoder)

    def draw(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rng = numpy_generator(seed, "text encoder", step)
        rows = rng.integers(0, len(captions.attributes), 64)
        return *captions.draw(rows, rng), torch.from_numpy(captions.attributes[rows]).long()

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        ids, columns, truth = batch
        hidden = text_encoder(ids).last_hidden_state
        picture, label = (columns[:, 1:] >= 0).nonzero(as_tuple=True)
        style, colour = reader(hidden[picture, columns[picture, label + 1]])
        named = truth[picture, label + 1]
        return F.cross_entropy(style, named[:, 0]) + F.cross_entropy(colour, named[:, 1])

    fit(reader, draw, loss_of, folder, steps=steps, learning_rate=1e-3)


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: np.ndarray, path: Path) -> np.ndarray:
    """Scaled posterior means of all pictures, (n, 4, 64, 64) float16, memory-mapped at `path`."""
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        latents = np.lib.format.open_memmap(partial, "w+", np.float16, (len(pictures), 4, 64, 64))
        for start in tqdm(range(0, len(pictures), 16), desc="encode pictures", unit="batch"):
            mean = vae.encode(to_vae(pictures[start : start + 16]).to(vae.device)).latent_dist.mean
            latents[start : start + 16] = (mean * vae.config.scaling_factor).half().cpu().numpy()
        latents.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


def velocity_loss(predicted: torch.Tensor, true: torch.Tensor, batch: CaptionedBatch, evened: bool) -> torch.Tensor:
    """Mean squared error of v, (n, 4, side, side) both; evened: with locations weighing as `batch.evened` has it."""
    if not evened:
        return F.mse_loss(predicted, true)
    return (batch.evened() * (predicted - true) ** 2).mean()


def grounding_loss(maps: torch.Tensor, batch: CaptionedBatch) -> torch.Tensor:
    """Cross-entropy of the attention at each label's locations with the label's noun, averaged over named labels.

    maps: (n, len(LABELS), h, w), the nouns' attention; unlike in PartCraft's loss all tokens compete, so that no other
    token may take the attention away.
    """
    spread = batch.spread()
    entropy = -(spread * maps.clamp(min=1e-6).log()).sum((2, 3))
    return entropy[(batch.columns >= 0) & (spread.sum((2, 3)) > 0)].mean()


def reading_loss(read: tuple[torch.Tensor, ...], batch: CaptionedBatch) -> torch.Tensor:
    """Cross-entropy of label, place, style and colour at each location, every visible label counting the same."""
    spread = batch.spread()
    label, place, style, colour = (-log_probabilities for log_probabilities in read)
    size = (-1, -1, *label.shape[2:])
    looks = [place.gather(1, batch.attributes[:, :1, :1, None].expand(size))]
    for part in range(1, len(LABELS)):
        # Labels of other worlds have no look; their spread is 0.
        first, second = batch.attributes[:, part, :, None, None, None].clamp(min=0).unbind(1)
        looks.append(style.gather(1, first.expand(size)) + colour.gather(1, second.expand(size)))
    entropy = (spread * (label + torch.cat(looks, 1))).sum((2, 3))
    return entropy[spread.sum((2, 3)) > 0].mean()


class _Lessons:
    """Batches and losses at one resolution. evened: whether small parts count for more than their area."""

    def __init__(
        self,
        model: TextToImage,
        capture: AttentionCapture,
        examples: Examples,
        schooling: Schooling,
        *,
        evened: bool,
    ):
        self._model, self._capture, self._examples, self._schooling = model, capture, examples, schooling
        self._evened = evened
        self._alphas = build_scheduler().alphas_cumprod.to(schooling.device)

    def draw(self, side: int, step: int, size: int, count: int) -> tuple[CaptionedBatch, torch.Tensor, torch.Tensor]:
        """A step's pictures, timesteps and noise."""
        seed = self._schooling.seed
        rng = numpy_generator(seed, "base", side, step)
        batch = self._examples.draw(rng.integers(_HELD_BACK, count, size), rng)
        strata = (rng.permutation(size) + rng.uniform(size=size)) / size
        timesteps = torch.from_numpy((strata * len(self._alphas)).astype(np.int64))
        return batch, timesteps, torch.randn(batch.clean.shape, generator=torch_generator(seed, "noise", side, step))

    def held_back(self, start: int, size: int) -> tuple[CaptionedBatch, torch.Tensor, torch.Tensor]:
        """Pictures that no step sees, at the middle of the schedule, with the same noise every time."""
        batch = self._examples.draw(
            np.arange(start, start + size), numpy_generator(self._schooling.seed, "gauge", start)
        )
        noise = torch.randn(batch.clean.shape, generator=torch_generator(self._schooling.seed, "gauge", start))
        return batch, torch.full((size,), len(self._alphas) // 2), noise

    def losses(
        self, drawn: tuple[CaptionedBatch, torch.Tensor, torch.Tensor], *, shuffled: bool = False
    ) -> dict[str, torch.Tensor]:
        """velocity, grounding and reading; shuffled: with every picture's caption given to the next one."""
        batch = drawn[0].to(self._schooling.device, non_blocking=True)
        timesteps, noise = (part.to(self._schooling.device, non_blocking=True) for part in drawn[1:])
        signal = self._alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - self._alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        self._capture.watch(batch.columns)
        with self.autocast():
            ids = batch.ids.roll(1, 0) if shuffled else batch.ids
            predicted = self._model(signal * batch.clean + spread * noise, timesteps, ids)
        return {
            "velocity": velocity_loss(predicted.float(), signal * noise - spread * batch.clean, batch, self._evened),
            "grounding": grounding_loss(self._capture.maps(), batch),
            "reading": reading_loss(self._model.read(), batch),
        }

    def autocast(self) -> torch.autocast:
        precision = self._schooling.precision
        kind = torch.device(self._schooling.device).type
        return torch.autocast(kind, precision, enabled=precision != torch.float32)


def train_base(
    pictures: PretrainingPictures, vae: AutoencoderKL, folder: Path, schooling: Schooling
) -> StableDiffusionPipeline:
    """Learn v from noisy latents and captions, first at half the resolution; returns the finished pipeline.

    At every checkpoint the gauge is written: the losses half-way through the schedule, on the same noise every time,
    and the one with shuffled captions, whose ratio to that with right ones says how much the model listens. At full
    resolution a sheet of samples comes with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(schooling.seed)
    tokenizer = build_tokenizer(folder / "tokenizer")
    latents = encode_pictures(vae, pictures.pictures, folder / "latents.npy")
    captions = Captions(pictures, tokenizer)
    text_encoder = build_text_encoder(tokenizer)
    train_text_encoder(text_encoder, captions, folder / "text_encoder", steps=schooling.text_steps, seed=schooling.seed)
    model = TextToImage(text_encoder, build_unet()).to(schooling.device)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    if schooling.device == "cpu" and schooling.precision == torch.bfloat16:
        attend_in_float32(model.unet, model.text_encoder)

    def train(
        stage: Path,
        side: int,
        steps: int,
        batch_size: int,
        learning_rate: float,
        *,
        evened: bool = True,
        first: int = 0,
    ) -> None:
        lessons = _Lessons(model, capture, Examples(pictures, latents, captions, side), schooling, evened=evened)

        def loss_of(drawn: tuple[CaptionedBatch, torch.Tensor, torch.Tensor]) -> torch.Tensor:
            losses = lessons.losses(drawn)
            return losses["velocity"] + _GROUNDING * losses["grounding"] + _READING * losses["reading"]

        @torch.no_grad()
        def gauge(step: int, _: nn.Module) -> None:
            held_back = [lessons.held_back(start, 64) for start in range(0, _HELD_BACK, 64)]
            right = [lessons.losses(drawn) for drawn in held_back]
            wrong = [lessons.losses(drawn, shuffled=True)["velocity"] for drawn in held_back]
            row = {name: float(torch.stack([losses[name] for losses in right]).mean()) for name in right[0]}
            row = {"step": step, **row, "shuffled": float(torch.stack(wrong).mean())}
            with (stage / "gauge.jsonl").open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            if side == model.unet.config.sample_size:
                capture.watch(None)
                with lessons.autocast():
                    sheet = draw_samples(pipeline, schooling.seed)
                Image.fromarray(sheet).save(stage / f"samples-{step:06d}.png")

        fit(
            model,
            lambda step: lessons.draw(side, first + step, batch_size, len(pictures)),
            loss_of,
            stage,
            steps=steps,
            learning_rate=learning_rate,
            on_checkpoint=gauge,
        )

    with AttentionCapture(model.unet) as capture:
        train(folder / "32x32", 32, *schooling.coarse, 2e-3)
        train(folder / "64x64", 64, *schooling.fine, 1.5e-3)
        train(folder / "64x64-plain", 64, *schooling.plain, 1e-3, evened=False, first=schooling.fine[0])
    return pipeline


def draw_samples(pipeline: StableDiffusionPipeline, seed: int, each: int = 8) -> np.ndarray:
    """Pictures of random subjects from their captions, a row for each world, (h, w, 3) uint8."""
    rows = []
    for world in WORLDS.values():
        rng = numpy_generator(seed, "samples", world.name)
        captions = [world.describe(world.random_subject(rng)) for _ in range(each)]
        noise = torch.randn((each, 4, 64, 64), generator=torch_generator(seed, "samples", world.name))
        latents = pipeline(
            captions,
            latents=noise.to(pipeline.unet.device),
            num_inference_steps=20,
            guidance_scale=2.0,
            guidance_rescale=0.5,
            output_type="latent",
        ).images
        with torch.autocast(latents.device.type, enabled=False):
            pictures = from_vae(pipeline.vae.decode(latents.float() / pipeline.vae.config.scaling_factor).sample)
        rows.append(np.concatenate(list(pictures), axis=1))
    return np.concatenate(rows)
