"""Held-out losses: always of the same, and nothing of the training depends on them."""

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.training.cache import TrainingCache, write_latents
from partcraft_kedro.training.loop import train
from partcraft_kedro.training.step import training_loss
from partcraft_kedro.training.validation import Validation

OF = TrainOptions(method="partcraft", steps=2, batch_size=2, micro_batch=2, rank=2, learning_rate=1e-2, average=0.5)
OF = OF.model_copy(update={"log_every": 1, "checkpoint_every": 1, "attention_weight": 0.5})
MAPS = np.random.default_rng(0).integers(0, 3, (3, 16, 16), dtype=np.uint8)
CODES = [np.array(code) for code in ([0, 1, 2], [1, -1, 0], [2, 3, 1])]


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(path)
    return paths


def validation_of(model: PartCraft, paths, folder, seed: int = 0) -> Validation:
    return Validation.of_pictures(model, paths, MAPS, CODES, OF.model_copy(update={"seed": seed}), folder)


def test_a_training_is_the_same_bytes_with_and_without_and_measures_what_its_adapter_would_hold(
    create_tiny, paths, tmp_path
) -> None:
    model, alone = create_tiny(), create_tiny()
    write_latents(model.pipeline.vae, paths, 128, tmp_path / "latents")
    cache = TrainingCache.load(tmp_path / "latents", MAPS, CODES)
    validation = validation_of(model, paths, tmp_path / "held out")
    history = train(model, cache, OF, tmp_path / "with", "f", validation=validation)
    pd.testing.assert_frame_equal(train(alone, cache, OF, tmp_path / "without", "f"), history.iloc[:, :5])
    first, second = (tmp_path / run / "checkpoint.safetensors" for run in ("with", "without"))
    assert first.read_bytes() == second.read_bytes()

    # `model` holds the averages now; in one pass over all three pictures, where the training took two.
    schedule = DDPMScheduler.from_config(model.own_scheduler.config)
    with AttentionCapture(model.pipeline.unet) as capture, torch.no_grad():
        expected = training_loss(model, capture, schedule, validation.batch, OF)
    assert list(history)[5:] == [f"validation_{name}" for name in expected]
    for name in ("loss", "loss_ldm"):
        assert history[f"validation_{name}"].iloc[-1] == pytest.approx(expected[name].item(), rel=1e-4)
    assert history["validation_loss"].nunique() == 2


def test_pictures_noise_and_timesteps_are_fixed_by_the_seed_and_spread(create_tiny, paths, tmp_path) -> None:
    model = create_tiny()
    one, again, other = (validation_of(model, paths, tmp_path / f"{i}", seed).batch for i, seed in enumerate((0, 0, 1)))
    for name, tensor in vars(one).items():
        assert torch.equal(tensor, getattr(again, name)), name
    assert not torch.equal(one.noise, other.noise)
    steps = model.pipeline.scheduler.config.num_train_timesteps
    assert sorted((one.timesteps * 3 // steps).tolist()) == [0, 1, 2]
    assert sorted(map(tuple, (one.columns >= 0).tolist())) == sorted(tuple(code >= 0) for code in CODES)
