import pytest
import torch
from diffusers import UNet2DConditionModel


@pytest.fixture(scope="session")
def unet():
    """A random U-Net of Stable Diffusion's layout, cross-attention at 8×8 and 4×4, the paper's five layers at 4×4."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=2,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=2,
    )
    return network.eval().requires_grad_(False)
