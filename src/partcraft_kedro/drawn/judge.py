"""An independent judge of drawn worlds: which look does each part of a picture have, and where does each part end?

EMR and CoSim reuse the clusters that supervised the training. The judge shares nothing with them: a small convolutional
network, trained on the worlds' exact attributes and masks, other pictures and no vision transformer.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from partcraft_kedro.drawn.world import World
from partcraft_kedro.drawn.worlds import COLOURS, DETAILS, LABELS, PLACES, STYLES, numbers

_GROUPS = (len(LABELS), len(PLACES), len(STYLES), len(COLOURS))
_WIDTH = 96


def _layers(inner: int, outer: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inner, outer, kernel, stride, padding, dilation)
    return [convolution, nn.GroupNorm(8, outer), nn.ReLU()]


def _most_voted(words: Sequence[str], known: Sequence[str], votes: torch.Tensor) -> str:
    """The one of `words` with the most votes. votes: one number for each of `known`."""
    return max(words, key=lambda word: float(votes[known.index(word)]))


class Judge(nn.Module):
    """Names label, place, style and colour of every 8×8 patch, and the label or detail of every 2×2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_layers(3, 24, 4, 2, 1))
        narrow = [layer for inner, outer in pairwise((24, 48, _WIDTH)) for layer in _layers(inner, outer, 4, 2, 1)]
        wide = [layer for dilation in (1, 2, 4) for layer in _layers(_WIDTH, _WIDTH, 3, 1, dilation, dilation)]
        self.layers = nn.Sequential(*narrow, *wide)
        self.head = nn.Conv2d(_WIDTH, sum(_GROUPS), 1)
        self.fine = nn.Sequential(
            *_layers(24 + _WIDTH, 32, 3, 1, 1), *_layers(32, 32, 3, 1, 1), nn.Conv2d(32, len(LABELS) + len(DETAILS), 1)
        )

    def _features(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        edges = self.stem(pictures * 2 - 1)
        return edges, self.layers(edges)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, 128, 128) in 0..1 → logits of label, place, style and colour, each (n, c, 16, 16), and of label or
        detail, (n, c, 64, 64)."""
        edges, features = self._features(pictures)
        whole = nn.functional.interpolate(features, scale_factor=4, mode="bilinear")
        return *self.head(features).split(_GROUPS, dim=1), self.fine(torch.cat([edges, whole], 1))

    @torch.no_grad()
    def attributes(self, world: World, pictures: torch.Tensor) -> list[dict[str, str | None]]:
        """Each picture's look for each part, and its background's place; None for a part that does not show.

        A part's style and colour are the vote of its patches. A part of under two patches does not show.
        """
        label, place, style, colour, _ = self(pictures)
        own = [LABELS.index(name) for name in world.labels]
        where = nn.functional.one_hot(label[:, own].argmax(1), len(own)).permute(0, 3, 1, 2).float()
        sizes = where.sum((2, 3))
        places, styles, colours = (
            torch.einsum("nlhw,nchw->nlc", where, group.softmax(1)) for group in (place, style, colour)
        )
        judged = []
        for i in range(len(pictures)):
            row: dict[str, str | None] = {"background": PLACES[int(places[i, 0].argmax())]}
            for m, (part, looks) in enumerate(world.looks.items(), start=1):
                look = " ".join(
                    _most_voted(words, known, vote[i, m])
                    for words, vote, known in zip(looks, (styles, colours), (STYLES, COLOURS), strict=True)
                )
                row[part] = look if sizes[i, m] >= 2 else None
            judged.append(row)
        return judged

    @torch.no_grad()
    def outlines(self, world: World, pictures: torch.Tensor) -> np.ndarray:
        """Which label or detail shows where, (n, 64, 64) uint8 in the order of the world's labels and details."""
        return self(pictures)[-1][:, numbers(world).tolist()].argmax(1).to(torch.uint8).numpy()

    @torch.no_grad()
    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """The mean over the picture of the last features, (n, 96), for distances."""
        return self._features(pictures)[1].mean((2, 3))

    def save(self, path: Path) -> None:
        save_file({name: weight.half().contiguous() for name, weight in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Judge":
        judge = cls()
        judge.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
        return judge.eval()
