"""Which base models are taken, and how."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.base import load_base

FOUR = {"block_out_channels": (8, 8, 8, 8)}
TWO = {
    "block_out_channels": (8, 8),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


@pytest.fixture
def base_with(tmp_path):
    """Writes a base model that is tiny but for its U-Net."""
    pipeline = load_base("tiny", "cpu")

    def write(**config: object) -> str:
        width = pipeline.text_encoder.config.hidden_size
        unet = UNet2DConditionModel(
            **{"sample_size": 64, "norm_num_groups": 4, "cross_attention_dim": width, "attention_head_dim": 2} | config
        )
        pipeline.register_modules(unet=unet)
        pipeline.save_pretrained(tmp_path / "base")
        return str(tmp_path / "base")

    return write


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (TWO, "its U-Net attends to no words at a quarter of its latents' resolution"),
        (FOUR | {"in_channels": 9}, "its U-Net takes 9 channels, as for inpainting, its VAE has 4"),
        (FOUR | {"sample_size": [64, 96]}, r"its pictures are not square, but \[64, 96\]"),
    ],
)
def test_a_base_that_could_not_be_trained_is_refused(base_with, config: dict, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^base\.model='.*base' cannot learn parts, as {reason}.*: give a Stable"):
        load_base(base_with(**config), "cpu")


@pytest.mark.parametrize(("latents", "at_once"), [(64, 3), (128, 1)])
def test_large_pictures_pass_the_vae_one_by_one(base_with, latents: int, at_once: int) -> None:
    """tiny's VAE halves: 128 and 256 pixels."""
    vae = load_base(base_with(**FOUR, sample_size=latents), "cpu").vae
    seen = []
    for network in (vae.encoder, vae.decoder):
        network.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    with torch.inference_mode():
        vae.decode(vae.encode(torch.zeros(3, 3, 8, 8)).latent_dist.mean)
    assert set(seen) == {at_once}
