"""tiny's text encoder and U-Net: a small Stable Diffusion that learns creatures from attribute captions.

What makes captions bind within tens of thousands of samples on a laptop's processor:

- Token embeddings start with standard deviation 1 (CLIP's .02 makes all captions look alike), and the text encoder
  first learns to gather each noun's adjectives.
- Each location's attention is drawn to the noun of the part that it shows. All tokens compete, the start token too:
  a loss on the nouns' shares alone lets the start token swallow the attention, and the adjectives are never read.
- The 16×16 features of the second decoder block must name what each location shows (after REPA, Yu et al. 2024,
  arXiv:2410.06940, with exact labels in the place of a pretrained encoder).
- v-prediction on a schedule that ends in pure noise (Lin et al. 2023, arXiv:2305.08891) and is stronger than Stable
  Diffusion's: a part covers hundreds of latents, whose mean shows its colour through all but the strongest noise,
  and only where it does not is the caption needed (Hoogeboom et al. 2023, arXiv:2301.11093, shift for the same reason).
- The squared error counts small parts for more than their area.
- As Stable Diffusion itself it learns at half the resolution first, at a quarter of the price a sample.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from partcraft_kedro.images import creatures
from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.pretraining.fitting import fit
from partcraft_kedro.pretraining.pictures import PretrainingPictures, caption
from partcraft_kedro.randomness import numpy_generator, torch_generator

_CONTEXT = 48  # tokens
_WIDTH = 128  # of the text encoder
_GROUPS = (len(creatures.LABELS), len(creatures.BACKGROUNDS), len(creatures.COLOURS), len(creatures.PATTERNS))
_GROUNDING = 0.1  # weight of the grounding loss
_READING = 0.1  # weight of the reading loss


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's format whose merges spell the caption words; other words fall into letters."""
    words = ["a", "photo", "of", "bird", "on", *creatures.LABELS]
    words += [*creatures.COLOURS, *creatures.PATTERNS, *creatures.BACKGROUNDS]
    alphabet = _byte_alphabet()
    vocabulary, merges = alphabet + [letter + "</w>" for letter in alphabet], []
    # Each merge is applied to all words at once, as the tokenizer will: a merge that one word needs may otherwise
    # break another apart.
    spelt = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    while unfinished := [pieces for pieces in spelt.values() if len(pieces) > 1]:
        first, second = unfinished[0][:2]
        merges.append(f"{first} {second}")
        vocabulary.append(first + second)
        spelt = {word: _merged(pieces, first, second) for word, pieces in spelt.items()}
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=_CONTEXT)


def _merged(pieces: list[str], first: str, second: str) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and merged[-1] == first and piece == second:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in printable] + [chr(256 + extra) for extra in range(256 - len(printable))]


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two CLIP layers of width 128, with token embeddings of standard deviation 1."""
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=_CONTEXT,
            projection_dim=_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    nn.init.normal_(text_encoder.get_input_embeddings().weight, std=1.0)
    return text_encoder


def build_unet() -> UNet2DConditionModel:
    """64×64 latents; attention at 16×16 only, so that the paper's five layers carry their Stable Diffusion names."""
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=(1, 1, 2, 1),
        norm_num_groups=8,
        cross_attention_dim=_WIDTH,
        attention_head_dim=2,  # the number of heads, in diffusers' naming
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on Stable Diffusion's schedule with five times its final β, ending in pure noise; v-prediction."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.06,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


class _Captions:
    """Draws captions of pictures, tokenized, with the position of each label's noun."""

    def __init__(self, pictures: PretrainingPictures, tokenizer: CLIPTokenizer):
        self.pictures = pictures
        self._visible = np.stack([np.bincount(mask.ravel(), minlength=6) > 0 for mask in pictures.masks])
        self._tokenizer = tokenizer
        self._nouns = tokenizer.convert_tokens_to_ids([f"{label}</w>" for label in creatures.LABELS])
        self._kinds = tokenizer.convert_tokens_to_ids([f"{kind}</w>" for kind in creatures.BACKGROUNDS])

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (n, length), and the position of each label's noun (n, 6), -1 where it is not named."""
        attributes = self.pictures.attributes
        texts = [caption(attributes[row], self._visible[row], rng) for row in rows]
        ids = self._tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        named = torch.tensor([[self._kinds[attributes[row, 0, 0]], *self._nouns[1:]] for row in rows])
        found = ids[:, None, :] == named[:, :, None]
        return ids, torch.where(found.any(-1), found.float().argmax(-1), -1)


class _NounReader(nn.Module):
    """Reads off each noun's last hidden state what the caption says of it."""

    def __init__(self, text_encoder: CLIPTextModel):
        super().__init__()
        self.text_encoder = text_encoder
        self.looks = nn.Linear(_WIDTH, len(creatures.COLOURS) + len(creatures.PATTERNS))


def train_text_encoder(
    text_encoder: CLIPTextModel, captions: _Captions, folder: Path, *, steps: int, batch_size: int, seed: int
) -> CLIPTextModel:
    """Teach the text encoder to gather each part's colour and pattern at its noun, as CLIP does before diffusion.

    Cross-entropy of a linear reading of the noun's last hidden state.
    """
    torch.manual_seed(seed)
    reader = _NounReader(text_encoder)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = numpy_generator(seed, "text encoder", step)
        rows = rng.integers(0, len(captions.pictures), batch_size)
        ids, columns = captions.draw(rows, rng)
        hidden = text_encoder(ids).last_hidden_state
        picture, label = (columns[:, 1:] >= 0).nonzero(as_tuple=True)
        states = hidden[picture, columns[picture, label + 1]]
        truth = torch.from_numpy(captions.pictures.attributes[rows]).long()[picture, label + 1]
        colour, pattern = reader.looks(states).split((len(creatures.COLOURS), len(creatures.PATTERNS)), dim=-1)
        return F.cross_entropy(colour, truth[:, 0]) + F.cross_entropy(pattern, truth[:, 1])

    return fit(reader, loss_of_step, folder, steps=steps, learning_rate=1e-3).text_encoder


class TextToImage(nn.Module):
    """What is trained: the text encoder, the U-Net, and a linear reading of the U-Net's 16×16 features."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel):
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        self.reader = nn.Conv2d(unet.config.block_out_channels[2], sum(_GROUPS), 1)
        unet.up_blocks[1].attentions[-1].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: tuple, output: tuple[torch.Tensor]) -> None:
        self._features = output[0]

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.unet(noisy, timesteps, self.text_encoder(ids).last_hidden_state, return_dict=False)[0]

    def read(self) -> tuple[torch.Tensor, ...]:
        """What the last forward pass believes each location shows: log-probabilities (n, c, side, side) of label,
        background kind, colour and pattern."""
        return tuple(group.log_softmax(1) for group in self.reader(self._features).split(_GROUPS, dim=1))


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: np.ndarray, path: Path) -> np.ndarray:
    """Scaled posterior means of all pictures, (n, 4, 64, 64) float16, memory-mapped at `path`."""
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        latents = np.lib.format.open_memmap(partial, "w+", np.float16, (len(pictures), 4, 64, 64))
        for start in range(0, len(pictures), 64):
            mean = vae.encode(to_vae(pictures[start : start + 64])).latent_dist.mean
            latents[start : start + 64] = (mean * vae.config.scaling_factor).half().numpy()
        latents.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


@dataclass(frozen=True)
class CaptionedBatch:
    """clean: (n, 4, side, side) latents; masks: (n, 6, side, side), 0 or 1; attributes: (n, 6, 2);
    ids: (n, length) of the captions; columns: (n, 6), the position of each label's noun, -1 where it is not named."""

    clean: torch.Tensor
    masks: torch.Tensor
    attributes: torch.Tensor
    ids: torch.Tensor
    columns: torch.Tensor

    def evened(self) -> torch.Tensor:
        """Weights of the locations, (n, 1, side, side) with mean 1: small labels count for more than their area."""
        areas = self.masks.mean((2, 3), keepdim=True)
        weights = (self.masks / areas.clamp(min=1e-6).sqrt()).sum(1, keepdim=True)
        return weights / weights.mean((2, 3), keepdim=True)

    def spread(self) -> torch.Tensor:
        """Each label's share of its area at each 16×16 location, (n, 6, side/4, side/4), sums to 1 or, unseen, 0."""
        fractions = F.avg_pool2d(self.masks, 4)
        return fractions / fractions.sum((2, 3), keepdim=True).clamp(min=1e-6)


class _Examples:
    """Everything a training step needs of some pictures, at one resolution."""

    def __init__(self, pictures: PretrainingPictures, latents: np.ndarray, captions: _Captions, side: int):
        self._pictures = pictures
        self._latents = latents
        self._captions = captions
        self._side = side

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> CaptionedBatch:
        clean = F.adaptive_avg_pool2d(torch.from_numpy(self._latents[rows]).float(), self._side)
        step = self._pictures.masks.shape[1] // self._side
        labels = torch.from_numpy(self._pictures.masks[rows][:, ::step, ::step]).long()
        masks = F.one_hot(labels, len(creatures.LABELS)).permute(0, 3, 1, 2).float()
        ids, columns = self._captions.draw(rows, rng)
        return CaptionedBatch(clean, masks, torch.from_numpy(self._pictures.attributes[rows]).long(), ids, columns)


def grounding_loss(maps: torch.Tensor, batch: CaptionedBatch) -> torch.Tensor:
    """Cross-entropy of the attention at each label's locations with the label's noun, averaged over named labels.

    maps: (n, 6, h, w), the nouns' attention; unlike in PartCraft's loss all tokens compete, so that no other
    token may take the attention away.
    """
    spread = batch.spread()
    entropy = -(spread * maps.clamp(min=1e-6).log()).sum((2, 3))
    return entropy[(batch.columns >= 0) & (spread.sum((2, 3)) > 0)].mean()


def reading_loss(read: tuple[torch.Tensor, ...], batch: CaptionedBatch) -> torch.Tensor:
    """Cross-entropy of label, kind, colour and pattern at each location, every visible label counting the same."""
    spread = batch.spread()
    label, kind, colour, pattern = (-log_probabilities for log_probabilities in read)
    looks = [kind.gather(1, batch.attributes[:, :1, :1, None].expand(-1, -1, *kind.shape[2:]))]
    for part in range(1, len(creatures.LABELS)):
        first, second = batch.attributes[:, part, :, None, None, None].unbind(1)
        size = (-1, -1, *kind.shape[2:])
        looks.append(colour.gather(1, first.expand(size)) + pattern.gather(1, second.expand(size)))
    entropy = (spread * (label + torch.cat(looks, 1))).sum((2, 3))
    return entropy[spread.sum((2, 3)) > 0].mean()


def train_base(
    pictures: PretrainingPictures,
    vae: AutoencoderKL,
    folder: Path,
    *,
    text_steps: int,
    coarse_steps: int,
    fine_steps: int,
    seed: int,
) -> StableDiffusionPipeline:
    """Learn v from noisy latents and captions, first at half the resolution; returns the finished pipeline.

    At every checkpoint the gauge is written: the loss half-way through the schedule, on the same noise every time, with
    right captions and with shuffled ones; their ratio says how much the model listens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer")
    scheduler = build_scheduler()
    latents = encode_pictures(vae, pictures.pictures, folder / "latents.npy")
    captions = _Captions(pictures, tokenizer)
    text_encoder = train_text_encoder(
        build_text_encoder(tokenizer), captions, folder / "text_encoder", steps=text_steps, batch_size=64, seed=seed
    )
    model = TextToImage(text_encoder, build_unet().to(memory_format=torch.channels_last))
    held_back = 256  # pictures kept for the gauge
    alphas = scheduler.alphas_cumprod

    def velocity_loss(
        batch: CaptionedBatch, ids: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        noisy = signal * batch.clean + spread * noise
        predicted = model(noisy.contiguous(memory_format=torch.channels_last), timesteps, ids)
        return (batch.evened() * (predicted - (signal * noise - spread * batch.clean)) ** 2).mean()

    def train(side: int, steps: int, batch_size: int, learning_rate: float) -> None:
        examples = _Examples(pictures, latents, captions, side)
        stage = folder / f"{side}x{side}"

        def loss_of_step(step: int) -> torch.Tensor:
            rng = numpy_generator(seed, "base", side, step)
            batch = examples.draw(rng.integers(held_back, len(pictures), batch_size), rng)
            timesteps = torch.from_numpy(rng.integers(0, len(alphas), batch_size))
            noise = torch.randn(batch.clean.shape, generator=torch_generator(seed, "base noise", side, step))
            capture.watch(batch.columns)
            velocity = velocity_loss(batch, batch.ids, timesteps, noise)
            grounding = grounding_loss(capture.maps(), batch)
            return velocity + _GROUNDING * grounding + _READING * reading_loss(model.read(), batch)

        @torch.no_grad()
        def gauge(step: int, _: nn.Module) -> None:
            losses = {"right": 0.0, "shuffled": 0.0, "reading": 0.0, "grounding": 0.0}
            chunks = range(0, held_back, 64)
            for start in chunks:
                rng = numpy_generator(seed, "gauge", start)
                batch = examples.draw(np.arange(start, start + 64), rng)
                timesteps = torch.full((64,), len(alphas) // 2)
                noise = torch.randn(batch.clean.shape, generator=torch_generator(seed, "gauge", start))
                capture.watch(batch.columns)
                losses["right"] += float(velocity_loss(batch, batch.ids, timesteps, noise))
                losses["reading"] += float(reading_loss(model.read(), batch))
                losses["grounding"] += float(grounding_loss(capture.maps(), batch))
                losses["shuffled"] += float(velocity_loss(batch, batch.ids.roll(1, 0), timesteps, noise))
            row = {"step": step, **{name: loss / len(chunks) for name, loss in losses.items()}}
            with (stage / "gauge.jsonl").open("a") as lines:
                lines.write(json.dumps(row) + "\n")

        fit(model, loss_of_step, stage, steps=steps, learning_rate=learning_rate, on_checkpoint=gauge)

    with AttentionCapture(model.unet) as capture:
        train(32, coarse_steps, 32, 2e-3)
        train(64, fine_steps, 8, 1.5e-3)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet.to(memory_format=torch.contiguous_format),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
