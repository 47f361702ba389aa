"""The bottleneck encoder: part tokens to word embeddings (Eq. 4)."""

from collections.abc import Sequence

import torch
from torch import nn


class PartEncoder(nn.Module):
    """y = f(e(p)): a table e of part variants, a learnable vector for each part, and an MLP f with ReLU.

    part_count: M; variant_count: K; width: of the text encoder's token embeddings; layers: of f, where 0 makes f
    the identity, which is plain textual inversion; scale: the standard deviation of the base model's token
    embeddings, at which the outputs start (the authors' start 10 to 60 times off it); rows: what the table starts from,
    ((M+1)·K, width), of standard deviation 1; none: noise (the paper).
    """

    def __init__(
        self,
        part_count: int,
        variant_count: int,
        width: int,
        *,
        layers: int,
        scale: float,
        rows: torch.Tensor | None = None,
    ):
        super().__init__()
        self.part_count = part_count
        self.variant_count = variant_count
        self.variants = nn.Embedding((part_count + 1) * variant_count, width)
        self.parts = nn.Embedding(part_count + 1, width)
        hidden = [module for _ in range(layers - 1) for module in (nn.Linear(width, width), nn.ReLU())]
        self.bottleneck = nn.Sequential(*hidden, *([nn.Linear(width, width)] if layers else []))
        with torch.no_grad():
            nn.init.normal_(self.parts.weight)
            if rows is not None:
                self.variants.weight.copy_(rows)
            factor = scale / self.all_embeddings().std()
            last = self.bottleneck[-1] if layers else nn.ModuleList([self.variants, self.parts])
            for parameter in last.parameters():
                parameter.mul_(factor)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Token indices m·K + k, any shape → embeddings (..., width)."""
        part = torch.div(indices, self.variant_count, rounding_mode="floor")
        return self.bottleneck(self.variants(indices) + self.parts(part))

    def all_embeddings(self) -> torch.Tensor:
        """Every token's embedding, ((M+1)·K, width)."""
        return self(torch.arange(self.variants.num_embeddings, device=self.variants.weight.device))


def rows_of_centroids(centroids: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """A table of part variants in which alike variants lie near each other: ((M+1)·K, width), of standard deviation 1.

    centroids: of each part's variants, M+1 of (at most K, feature width). What a part's variants have in common is left
    out, as the part has a vector of its own, and the rest turned at random into the table's width, which keeps angles
    (Johnson and Lindenstrauss 1984). Tokens that stand for no variant start from noise.
    """
    count = max(map(len, centroids))
    rows = torch.randn(len(centroids), count, width)
    turn = torch.randn(centroids[0].shape[1], width)
    for part, of_part in enumerate(centroids):
        turned = (of_part - of_part.mean(0)) @ turn
        if len(of_part) > 1:  # the only variant of a part is not unlike others
            rows[part, : len(of_part)] = turned / turned.std()
    return rows.flatten(0, 1)
