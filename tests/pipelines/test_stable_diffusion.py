"""Real photographs through the chain at Stable Diffusion 1.5's architecture: its classes, names, tokenizer, sizes."""

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


def test_two_steps_and_two_pictures_on_photographs(tmp_path) -> None:
    build(SHARED / "configs/sd15", tmp_path / "model", width=0.1)
    some_of_cub(SHARED / "data/CUB_200_2011", tmp_path / "CUB_200_2011", 8)
    features = SHARED / "weights/dinov2-small-imgfocus"
    result = run_chain(tmp_path / "model", tmp_path / "CUB_200_2011", features, tmp_path / "data", sampling_steps=1)
    assert result.returncode == 0, result.stdout
    data = tmp_path / "data"
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
