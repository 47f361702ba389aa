"""The two losses of the paper, and the weighting of timesteps."""

import torch
import torch.nn.functional as F


def attention_loss(
    maps: torch.Tensor, masks: torch.Tensor, loss: str = "cross_entropy", normalisation: str = "parts"
) -> torch.Tensor:
    """Eq. 5: the binary cross-entropy between each token's share of the attention and its part's mask.

    maps: Ā, (batch, part, height, width), all zero for a part without a token; masks: S, the same shape, 0 to 1.
    normalisation: `parts`, at each location the parts compete, Â_m = Ā_m / Σ_k Ā_k; `maximum`, each map is divided by
    its own maximum (Break-a-Scene, Avrahami et al. 2023, arXiv:2305.16311, Eq. 2).
    loss: `cross_entropy`, or Break-a-Scene's `squared_error`.
    The mean is over locations and over the parts that have a token, then over pictures, so that a batch's loss is the
    mean of its pieces' losses. Computed in float32: half precision has no gradient at exact zeros.
    """
    maps, masks = maps.float(), masks.float()
    present = (maps.detach().flatten(2).amax(-1) > 0).float()  # (batch, part)
    whole = maps.sum(1, keepdim=True) if normalisation == "parts" else maps.amax((2, 3), keepdim=True)
    shares = maps / whole.clamp(min=1e-12)
    if loss == "cross_entropy":
        # It refuses NaN, on a GPU by ending the process; the diffusion loss of the same pass tells of it.
        shares = shares.nan_to_num(nan=0.5).clamp(1e-6, 1 - 1e-6)
        errors = F.binary_cross_entropy(shares, masks, reduction="none")
    else:
        errors = (shares - masks).square()
    of_parts = errors.mean((2, 3)) * present
    return (of_parts.sum(1) / present.sum(1).clamp(min=1)).mean()


def attention_inside(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The fraction of each token's attention that lies inside its part's mask, (batch, part); NaN without a token."""
    maps = maps.float()
    return (maps * masks).sum((2, 3)) / maps.sum((2, 3))


def min_snr_weights(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float, prediction_type: str
) -> torch.Tensor:
    """Weights of the squared error, (batch,) float32 (Hang et al. 2023, arXiv:2303.09556).

    min(SNR, γ)/SNR for epsilon prediction, min(SNR, γ)/(SNR + 1) for v-prediction.
    """
    signal = alphas_cumprod[timesteps].float()
    ratio = signal / (1 - signal)
    clipped = ratio.clamp(max=gamma)
    return clipped / (ratio + 1) if prediction_type == "v_prediction" else clipped / ratio.clamp(min=1e-12)
