"""The bottleneck encoder: part tokens to word embeddings (Eq. 4)."""

from collections.abc import Sequence

import torch
from torch import nn


class PartEncoder(nn.Module):
    """y = f(e(p)): a table e of part variants, a learnable vector for each part, and an MLP f with ReLU.

    A token has an embedding for each text encoder of the base model, all from one bottleneck: SDXL has two.

    part_count: M; variant_count: K; widths: of each text encoder's token embeddings; layers: of f, where 0 makes f
    the identity, which is plain textual inversion; scales: the standard deviation of each one's token embeddings, at
    which the outputs start (the authors' start 10 to 60 times off it); centroids: of each part's variants, for the
    table to start from, see `rows_of_centroids`; none: noise (the paper).
    """

    def __init__(
        self,
        part_count: int,
        variant_count: int,
        widths: Sequence[int],
        *,
        layers: int,
        scales: Sequence[float],
        centroids: Sequence[torch.Tensor] | None = None,
    ):
        super().__init__()
        self.part_count = part_count
        self.variant_count = variant_count
        self.widths = list(widths)
        width = widths[0] if layers else sum(widths)
        rows = None if centroids is None else rows_of_centroids(centroids, width)
        self.variants = nn.Embedding((part_count + 1) * variant_count, width)
        self.parts = nn.Embedding(part_count + 1, width)
        hidden = [module for _ in range(layers - 1) for module in (nn.Linear(width, width), nn.ReLU())]
        self.bottleneck = nn.Sequential(*hidden, *([nn.Linear(width, sum(widths))] if layers else []))
        with torch.no_grad():
            nn.init.normal_(self.parts.weight)
            if rows is not None:
                self.variants.weight.copy_(rows)
            self._start_at(scales)

    def _start_at(self, scales: Sequence[float]) -> None:
        """Bring each text encoder's embeddings to a standard deviation."""
        factors = [scale / of_one.std() for scale, of_one in zip(scales, self.all_embeddings(), strict=True)]
        # What makes the outputs, each of which is a row of a layer's weight, and a column of a table's.
        tables = [self.variants.weight.T, self.parts.weight.T]
        for weight in self.bottleneck[-1].parameters() if len(self.bottleneck) else tables:
            for factor, of_one in zip(factors, weight.split(self.widths), strict=True):
                of_one.mul_(factor)

    def forward(self, indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Token indices m·K + k, any shape → embeddings (..., width) for each text encoder."""
        part = torch.div(indices, self.variant_count, rounding_mode="floor")
        return self.bottleneck(self.variants(indices) + self.parts(part)).split(self.widths, dim=-1)

    def all_embeddings(self) -> tuple[torch.Tensor, ...]:
        """Every token's embedding, ((M+1)·K, width) for each text encoder."""
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
