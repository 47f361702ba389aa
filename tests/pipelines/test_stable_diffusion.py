"""Real photographs through the chain at Stable Diffusion's architectures: their classes, names, tokenizers, sizes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file

from stable_diffusion import build, run_chain, some_of_cub

SHARED = Path(__file__).parents[3] / "shared"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="no Stable Diffusion configs and photographs here")
LAYERS = [f"down_blocks.2.attentions.{i}" for i in range(2)] + [f"up_blocks.1.attentions.{i}" for i in range(3)]


def run_on_photographs(base: str, folder: Path, size: int | None = None) -> Path:
    """Two steps and two pictures on eight photographs; returns the folder of data."""
    build(SHARED / f"configs/{base}", folder / "model", width=0.1)
    some_of_cub(SHARED / "data/CUB_200_2011", folder / "CUB_200_2011", 8)
    features = SHARED / "weights/dinov2-small-imgfocus"
    place = folder / "CUB_200_2011"
    result = run_chain(folder / "model", place, features, folder / "data", sampling_steps=1, size=size)
    assert result.returncode == 0, result.stdout
    return folder / "data"


@pytest.mark.parametrize("base", ["sd21", "sdxl"])
def test_other_bases_go_through_the_whole_chain(base: str, tmp_path: Path) -> None:
    """At 256 pixels: Stable Diffusion 2.1 with v-prediction and a wider text encoder, XL with two of them."""
    data = run_on_photographs(base, tmp_path, size=256)
    pictures = list(data.glob("07_model_output/cub/pictures-*/*.png"))
    assert [Image.open(path).size for path in pictures] == [(256, 256)] * 2
    losses = pd.read_parquet(data / "06_models/cub/training_losses.parquet")
    assert np.isfinite(losses.to_numpy()).all()
    metrics = json.loads((data / "08_reporting/cub/metrics.json").read_text())
    assert 0 <= metrics["reconstruction"]["emr"]["value"] <= 1


def test_two_steps_and_two_pictures_on_photographs(tmp_path: Path) -> None:
    data = run_on_photographs("sd15", tmp_path)
    masks = load_file(next(data.glob("05_model_input/cub/part_masks/*/part_masks/masks.safetensors")))["label_maps"]
    assert masks.shape == (8, 16, 16)
    lora = load_file(next(data.glob("06_models/cub/adapter/*/adapter/pytorch_lora_weights.safetensors")))
    for layer in LAYERS:
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            assert f"unet.{layer}.transformer_blocks.0.attn2.{projection}.lora.down.weight" in lora
    assert not any("attn1" in name for name in lora)
    losses = pd.read_parquet(data / "06_models/cub/training_losses.parquet")
    assert np.isfinite(losses.to_numpy()).all()
    assert 0 < losses["loss_attention"].iloc[-1] < 2
    pictures = list(data.glob("07_model_output/cub/pictures-*/*.png"))
    assert [Image.open(path).size for path in pictures] == [(512, 512)] * 2
    metrics = json.loads((data / "08_reporting/cub/metrics.json").read_text())
    assert 0 <= metrics["reconstruction"]["emr"]["value"] <= 1
