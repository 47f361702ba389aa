"""tiny's text encoder and U-Net: a small Stable Diffusion that learns creatures from attribute captions.

Five choices make captions bind within tens of thousands of samples on a laptop's processor:
token embeddings start with standard deviation 1 (CLIP's .02 makes all captions look alike); the text encoder first
learns to gather each noun's adjectives; v-prediction on a schedule that ends in pure noise (Lin et al. 2023,
arXiv:2305.08891), where nothing but the caption says what to draw; each noun's attention is drawn to its part (the
attention loss of PartCraft, on words); and the 16×16 features of the first decoder block must predict what each patch
shows (after REPA, Yu et al. 2024, arXiv:2410.06940, with exact labels in the place of a pretrained encoder).
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from partcraft_kedro.images import creatures
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import to_vae
from partcraft_kedro.model.losses import attention_loss
from partcraft_kedro.pretraining.fitting import fit
from partcraft_kedro.pretraining.pictures import PretrainingPictures, caption, patch_codes, patch_fractions
from partcraft_kedro.randomness import numpy_generator, torch_generator

_CONTEXT = 48  # tokens
_WIDTH = 128  # of the text encoder
_STRONG_NOISE = 850  # the timestep from which the colours of parts drown
_STRONG_NOISE_SHARE = 0.6  # of the samples
_GROUNDING = 0.1  # weight of the attention loss
_ALIGNMENT = 0.5  # weight of the patch codes' squared error


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
    """DPM-Solver++ on Stable Diffusion's schedule, rescaled to end in pure noise, with v-prediction."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


class _Captions:
    """Draws captions of pictures, tokenized, with the position of each label's noun."""

    def __init__(self, pictures: PretrainingPictures, visible: np.ndarray, tokenizer: CLIPTokenizer):
        self.pictures = pictures
        self._visible = visible
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
    """What is trained: the text encoder, the U-Net, and a linear probe of the U-Net's 16×16 features."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel):
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        self.probe = nn.Linear(unet.config.block_out_channels[2], 23)
        unet.up_blocks[1].attentions[-1].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: tuple, output: tuple[torch.Tensor]) -> None:
        self._features = output[0]

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.unet(noisy, timesteps, self.text_encoder(ids).last_hidden_state, return_dict=False)[0]

    def patch_codes(self) -> torch.Tensor:
        """What the last forward pass believes each patch shows, (n, 16, 16, 23)."""
        return self.probe(self._features.permute(0, 2, 3, 1))


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


def train_base(
    pictures: PretrainingPictures,
    vae: AutoencoderKL,
    folder: Path,
    *,
    text_steps: int,
    steps: int,
    batch_size: int,
    seed: int,
) -> StableDiffusionPipeline:
    """Learn v from noisy latents and captions; returns the finished pipeline.

    At every checkpoint the gauge is written: the loss at high timesteps, on fixed noise, with right captions
    and with shuffled ones. Their ratio says how much the model listens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer")
    scheduler = build_scheduler()
    latents = encode_pictures(vae, pictures.pictures, folder / "latents.npy")
    fractions = np.concatenate([patch_fractions(m) for m in np.array_split(pictures.masks, 100)])
    captions = _Captions(pictures, fractions.any((1, 2)), tokenizer)
    text_encoder = train_text_encoder(
        build_text_encoder(tokenizer), captions, folder / "text_encoder", steps=text_steps, batch_size=64, seed=seed
    )
    model = TextToImage(text_encoder, build_unet())
    held_back = 256  # pictures kept for the gauge
    alphas = scheduler.alphas_cumprod
    capture = AttentionCapture(model.unet)

    def batch(rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        clean = torch.from_numpy(np.stack([latents[row] for row in rows])).float()
        return clean, *captions.draw(rows, rng)

    def velocity_loss(clean: torch.Tensor, ids: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor):
        signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        spread = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        predicted = model(signal * clean + spread * noise, timesteps, ids)
        return F.mse_loss(predicted, signal * noise - spread * clean)

    def loss_of_step(step: int) -> torch.Tensor:
        rng = numpy_generator(seed, "base", step)
        rows = rng.integers(held_back, len(pictures), batch_size)
        clean, ids, columns = batch(rows, rng)
        # A part covers hundreds of latents, whose mean shows its colour through all but the strongest noise. Only
        # there does the caption matter, so most samples go there.
        lowest = np.where(rng.uniform(size=batch_size) < _STRONG_NOISE_SHARE, _STRONG_NOISE, 0)
        timesteps = torch.from_numpy(rng.integers(lowest, len(alphas)))
        noise = torch.randn(clean.shape, generator=torch_generator(seed, "base noise", step))
        capture.watch(columns)
        velocity = velocity_loss(clean, ids, timesteps, noise)
        masks = torch.from_numpy(fractions[rows]).permute(0, 3, 1, 2)
        codes = torch.from_numpy(patch_codes(fractions[rows], pictures.attributes[rows], (1,) * 5))
        alignment = F.mse_loss(model.patch_codes(), codes)
        return velocity + _GROUNDING * attention_loss(capture.maps(), masks) + _ALIGNMENT * alignment

    @torch.no_grad()
    def gauge(step: int, _: nn.Module) -> None:
        losses = {"right": 0.0, "shuffled": 0.0}
        for start in range(0, held_back, 64):
            rng = numpy_generator(seed, "gauge", start)
            clean, ids, columns = batch(np.arange(start, start + 64), rng)
            timesteps = torch.full((64,), 900)
            noise = torch.randn(clean.shape, generator=torch_generator(seed, "gauge", start))
            capture.watch(columns)
            losses["right"] += float(velocity_loss(clean, ids, timesteps, noise)) / 4
            losses["shuffled"] += float(velocity_loss(clean, ids.roll(1, 0), timesteps, noise)) / 4
        row = {"step": step, **losses, "ratio": losses["shuffled"] / losses["right"]}
        with (folder / "gauge.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")

    fit(
        model,
        loss_of_step,
        folder,
        steps=steps,
        learning_rate=1.5e-3,
        on_checkpoint=gauge,
    )
    capture.__exit__()
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
