"""What a training step of tiny's text encoder and U-Net needs of some pictures."""

from copy import deepcopy
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTokenizer

from partcraft_kedro.drawn.shapes import SIZE
from partcraft_kedro.drawn.worlds import DETAILS, LABELS, PLACES, hosts
from partcraft_kedro.pretraining.pictures import PretrainingPictures, caption, world_of


class Captions:
    """Draws captions of pictures, tokenized, with the position of each label's noun."""

    def __init__(self, pictures: PretrainingPictures, tokenizer: CLIPTokenizer):
        self.attributes = pictures.attributes
        self._details = pictures.details
        # Its own, and set once and for all: threads draw captions, and whoever samples meanwhile pads as it likes.
        self._tokenizer = deepcopy(tokenizer)
        self._tokenize([""])
        self._nouns = tokenizer.convert_tokens_to_ids([f"{label}</w>" for label in LABELS])
        self._places = tokenizer.convert_tokens_to_ids([f"{place}</w>" for place in PLACES])

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (n, length), and the position of each label's noun (n, len(LABELS)), -1 where it is not named."""
        texts, named = [], []
        for row in rows:
            visible = np.bincount(hosts()[self._details[row].ravel()], minlength=len(LABELS)) > 0
            texts.append(caption(world_of(row), self.attributes[row], visible, rng))
            named.append([self._places[self.attributes[row, 0, 0]], *self._nouns[1:]])
        ids = self._tokenize(texts)
        found = ids[:, None, :] == torch.tensor(named)[:, :, None]
        return ids, torch.where(found.any(-1), found.float().argmax(-1), -1)

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        return self._tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


@dataclass(frozen=True)
class CaptionedBatch:
    """clean: (n, 4, side, side) latents; details: (n, side, side) in the order of (*LABELS, *DETAILS);
    attributes: (n, len(LABELS), 2); ids: (n, length) of the captions; columns: (n, len(LABELS)), the position of each
    label's noun, -1 where it is not named."""

    clean: torch.Tensor
    details: torch.Tensor
    attributes: torch.Tensor
    ids: torch.Tensor
    columns: torch.Tensor

    # Masks are laid out as pictures are: a loss in another layout would hand its own to every gradient of the U-Net,
    # whose normalisation then takes many times as long.

    def to(self, device: str, *, non_blocking: bool = False) -> "CaptionedBatch":
        return CaptionedBatch(
            *(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self))
        )

    def evened(self) -> torch.Tensor:
        """Weights of the locations, (n, 1, side, side) with mean 1: small labels and details count for more than
        their area."""
        masks = F.one_hot(self.details.long(), len(LABELS) + len(DETAILS)).permute(0, 3, 1, 2).float().contiguous()
        areas = masks.mean((2, 3), keepdim=True)
        weights = (masks / areas.clamp(min=1e-6).sqrt()).sum(1, keepdim=True)
        return weights / weights.mean((2, 3), keepdim=True)

    def spread(self) -> torch.Tensor:
        """Each label's share of its area at each location that attention looks at, (n, len(LABELS), side/4, side/4);
        sums to 1 or, where the label is not seen, to 0."""
        labels = torch.from_numpy(hosts()).to(self.details.device).long()[self.details.long()]
        masks = F.one_hot(labels, len(LABELS)).permute(0, 3, 1, 2).float().contiguous()
        fractions = F.avg_pool2d(masks, 4)
        return fractions / fractions.sum((2, 3), keepdim=True).clamp(min=1e-6)


class Examples:
    """Batches of pictures at one resolution, each a function of the generator alone."""

    def __init__(self, pictures: PretrainingPictures, latents: np.ndarray, captions: Captions, side: int):
        self._pictures, self._latents, self._captions, self._side = pictures, latents, captions, side

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> CaptionedBatch:
        clean = F.adaptive_avg_pool2d(torch.from_numpy(self._latents[rows]).float(), self._side)
        step = SIZE // self._side
        details = torch.from_numpy(self._pictures.details[rows][:, step // 2 :: step, step // 2 :: step].copy())
        ids, columns = self._captions.draw(rows, rng)
        return CaptionedBatch(clean, details, torch.from_numpy(self._pictures.attributes[rows]).long(), ids, columns)
