"""An adapter with random weights, and words of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from partcraft_kedro.export.adapter import Adapter, Base, read_adapter, read_base
from partcraft_kedro.export.choice import words_of
from partcraft_kedro.export.words import Word
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.prompts import PartToken

TITLE, NAMES, VARIANTS = "partcraft-cub", ["background", "head", "wing"], [3, 4, 4]


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory, carry_parts):
    """Makes the adapter that a method leaves; takes what learns of the U-Net, LoRA's layers and alpha, the base, and
    the model whose features its parts were found in."""

    def make(
        unet: str = "lora", layers: str = "cross", alpha: float = 2, base: str = "tiny", features: str = "tiny"
    ) -> Adapter:
        learns = {"unet": unet, "rank": 2, "lora_layers": layers, "bottleneck_layers": 2}
        model = PartCraft.create(base, "cpu", "float32", variants=VARIANTS, **learns, seed=0)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weight in model.pipeline.unet.named_parameters():
                if "lora_B" in name:  # which begin at zero
                    weight.normal_(std=0.2)
                elif weight.requires_grad and unet == "full":
                    weight *= 1.02
        if unet == "lora":
            model.pipeline.unet.peft_config["default"].lora_alpha = alpha
        folder = tmp_path_factory.mktemp("adapter")
        model.save_adapter(folder, {"steps": 7, "learning_rate": 0.001, "snr_gamma": None})
        carry_parts(folder, NAMES, features)
        return read_adapter(folder)

    return make


@pytest.fixture(scope="session")
def adapter(make_adapter) -> Adapter:
    """LoRA of rank 2 with alpha 6, of self-attention too."""
    return make_adapter(layers="all", alpha=6)


@pytest.fixture(scope="session")
def adapter_xl(make_adapter, small_xl) -> Adapter:
    """The same of SDXL."""
    return make_adapter(layers="all", alpha=6, base=str(small_xl))


@pytest.fixture(scope="session")
def base() -> Base:
    return read_base("tiny")


@pytest.fixture(scope="session")
def base_xl(small_xl) -> Base:
    return read_base(str(small_xl))


@pytest.fixture(scope="session")
def words() -> list[Word]:
    tokens = [PartToken(0, 1), PartToken(1, 2), PartToken(1, 3), PartToken(2, 0)]
    counts = [np.ones(count, int) for count in VARIANTS]
    crops = [np.full((128, 128, 3), 60 * i, np.uint8) for i in range(3)]
    named = zip(tokens, words_of(tokens, TITLE, NAMES, counts), [5, 3, 4, 0], [*crops, None], strict=True)
    return [Word(token, word, NAMES[token.part], count, crop) for token, word, count, crop in named]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return tmp_path / "export"
