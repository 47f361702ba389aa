"""The two losses of the paper, and the weighting of timesteps."""

import torch
import torch.nn.functional as F


def attention_loss(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Eq. 5: the binary cross-entropy between each token's share of the attention and its part's mask.

    maps: Ā, (batch, part, height, width), all zero for a part without a token; masks: S, the same shape, 0 or 1.
    At each location the parts compete: Â_m = Ā_m / Σ_k Ā_k. The mean is over locations and over the parts that have a
    token, then over pictures, so that a batch's loss is the mean of its pieces' losses.
    Computed in float32: half precision has no gradient at exact zeros.
    """
    maps = maps.float()
    present = (maps.detach().flatten(2).amax(-1) > 0).float()  # (batch, part)
    shares = maps / maps.sum(1, keepdim=True).clamp(min=1e-12)
    entropy = F.binary_cross_entropy(shares.clamp(1e-6, 1 - 1e-6), masks.float(), reduction="none")
    of_parts = entropy.mean((2, 3)) * present
    return (of_parts.sum(1) / present.sum(1).clamp(min=1)).mean()


def attention_inside(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The fraction of each token's attention that lies inside its part's mask, (batch, part); NaN without a token."""
    maps = maps.float()
    return (maps * masks).sum((2, 3)) / maps.sum((2, 3))


def min_snr_weights(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float, prediction_type: str):
    """Weights of the squared error, (batch,) float32 (Hang et al. 2023, arXiv:2303.09556).

    min(SNR, γ)/SNR for epsilon prediction, min(SNR, γ)/(SNR + 1) for v-prediction.
    """
    signal = alphas_cumprod[timesteps].float()
    ratio = signal / (1 - signal)
    clipped = ratio.clamp(max=gamma)
    return clipped / (ratio + 1) if prediction_type == "v_prediction" else clipped / ratio.clamp(min=1e-12)
