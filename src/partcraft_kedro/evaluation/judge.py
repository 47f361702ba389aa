"""An independent judge of creatures: which look does each part of a picture have?

EMR and CoSim reuse the clusters that supervised the training. The judge shares nothing with them: a small
convolutional network, trained on the generator's exact attributes, other pictures and no vision transformer.
"""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from partcraft_kedro.images.creatures import BACKGROUNDS, COLOURS, LABELS, PATTERNS

_GROUPS = (len(LABELS), len(BACKGROUNDS), len(COLOURS), len(PATTERNS))


class Judge(nn.Module):
    """Names label, background kind, colour and pattern of every 8×8 patch, and sums up by part."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        stem = [
            layer
            for inner, outer in pairwise(widths)
            for layer in (nn.Conv2d(inner, outer, 4, 2, 1), nn.GroupNorm(8, outer), nn.ReLU())
        ]
        wide = [
            layer
            for dilation in (1, 2, 4)
            for layer in (nn.Conv2d(96, 96, 3, 1, dilation, dilation), nn.GroupNorm(8, 96), nn.ReLU())
        ]
        self.layers = nn.Sequential(*stem, *wide)
        self.head = nn.Conv2d(96, sum(_GROUPS), 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, 128, 128) in 0..1 → logits of label, background kind, colour, pattern, each (n, c, 16, 16)."""
        return self.head(self.layers(pictures * 2 - 1)).split(_GROUPS, dim=1)

    @torch.no_grad()
    def attributes(self, pictures: torch.Tensor) -> list[dict[str, str | None]]:
        """Each picture's look per part and its background kind; None for a part that does not show.

        A part's colour and pattern are the vote of its patches. A part of under two patches does not show.
        """
        label, kind, colour, pattern = self(pictures)
        where = nn.functional.one_hot(label.argmax(1), len(LABELS)).permute(0, 3, 1, 2).float()
        sizes = where.sum((2, 3))
        votes = [
            torch.einsum("nlhw,nchw->nlc", where, group.softmax(1)).argmax(-1) for group in (kind, colour, pattern)
        ]
        kinds, colours, patterns = list(BACKGROUNDS), list(COLOURS), PATTERNS
        judged = []
        for i in range(len(pictures)):
            row: dict[str, str | None] = {"background": kinds[votes[0][i, 0]]}
            for m, part in enumerate(LABELS[1:], start=1):
                look = f"{patterns[votes[2][i, m]]} {colours[votes[1][i, m]]}"
                row[part] = look if sizes[i, m] >= 2 else None
            judged.append(row)
        return judged

    @torch.no_grad()
    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """The mean over the picture of the last features, (n, 96), for distances."""
        return self.layers(pictures * 2 - 1).mean((2, 3))

    def save(self, path: Path) -> None:
        save_file({name: weight.half().contiguous() for name, weight in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Judge":
        judge = cls()
        judge.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
        return judge.eval()
