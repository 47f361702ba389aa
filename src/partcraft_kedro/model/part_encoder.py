"""The bottleneck encoder: part tokens to word embeddings (Eq. 4)."""

import torch
from torch import nn


class PartEncoder(nn.Module):
    """y = f(e(p)): a table e of part variants, a learnable vector for each part, and an MLP f with ReLU.

    part_count: M; variant_count: K; width: of the text encoder's token embeddings; layers: of f, where 0 makes f
    the identity, which is plain textual inversion; scale: the standard deviation of the base model's token
    embeddings, at which the outputs start (the authors' start 10 to 60 times off it).
    """

    def __init__(self, part_count: int, variant_count: int, width: int, *, layers: int, scale: float):
        super().__init__()
        self.part_count = part_count
        self.variant_count = variant_count
        self.variants = nn.Embedding((part_count + 1) * variant_count, width)
        self.parts = nn.Embedding(part_count + 1, width)
        hidden = [module for _ in range(layers - 1) for module in (nn.Linear(width, width), nn.ReLU())]
        self.bottleneck = nn.Sequential(*hidden, *([nn.Linear(width, width)] if layers else []))
        with torch.no_grad():
            nn.init.normal_(self.parts.weight)
            factor = scale / self.all_embeddings().std()
            if layers:
                self.bottleneck[-1].weight *= factor
                self.bottleneck[-1].bias *= factor
            else:
                self.variants.weight *= factor
                self.parts.weight *= factor

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Token indices m·K + k, any shape → embeddings (..., width)."""
        part = torch.div(indices, self.variant_count, rounding_mode="floor")
        return self.bottleneck(self.variants(indices) + self.parts(part))

    def all_embeddings(self) -> torch.Tensor:
        """Every token's embedding, ((M+1)·K, width)."""
        return self(torch.arange(self.variants.num_embeddings, device=self.variants.weight.device))
