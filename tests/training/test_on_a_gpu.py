"""What only a GPU can show; left out where there is none."""

import numpy as np
import pytest
import torch

from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.group_norm import can_fuse
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient, _Finite, _Trainer
from partcraft_kedro.training.step import draw_ahead, draw_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
OF = TrainOptions(method="partcraft", steps=4, batch_size=2, rank=2, attention_weight=1.0)


def create(device: str, precision: str) -> PartCraft:
    learns = {"unet": "lora", "rank": 2, "lora_layers": "cross", "bottleneck_layers": 2, "seed": 0}
    return PartCraft.create("tiny", device, precision, variants=[3, 4, 4], **learns)


@pytest.fixture
def cache() -> TrainingCache:
    latents = torch.randn(2, 5, 4, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    codes = np.array([[0, 1, 2], [1, -1, 0], [2, 3, 1], [0, 0, 0], [1, 2, -1]])
    return TrainingCache([latents], [latents.abs() * 0.1], torch.zeros(2, 5, 16, 16, dtype=torch.uint8), codes)


def test_the_fused_norm_runs() -> None:
    """It needs Triton, which torch brings on Linux alone."""
    pytest.importorskip("triton")
    assert can_fuse(torch.device("cuda"))


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-3), ("bfloat16", 2**-7)])
def test_losses_are_those_of_a_cpu(cache: TrainingCache, precision: str, rounding: float) -> None:
    losses = []
    for device, of_device in (("cpu", "float32"), ("cuda", precision)):
        model = create(device, of_device)
        with AttentionCapture(model.pipeline.unet) as capture:
            losses.append(Gradient(model, capture, OF, micro_batch=2)(draw_batch(model, cache, OF, 0)))
    for name, loss in losses[0].items():
        assert losses[1][name].item() == pytest.approx(loss.item(), rel=rounding), name


def test_the_host_never_waits_between_log_steps(cache: TrainingCache, tmp_path) -> None:
    model = create("cuda", "bfloat16")
    trainer, finite = _Trainer(model.trainable(), OF, tmp_path, "f"), _Finite(0)
    with AttentionCapture(model.pipeline.unet) as capture:
        gradient = Gradient(model, capture, OF, micro_batch=2)
        try:
            for step, batch in enumerate(draw_ahead(model, cache, OF, range(OF.steps))):
                finite.add(gradient(batch)["loss"], trainer.step(step))
                torch.cuda.set_sync_debug_mode("error")  # the first step sets up what the others use
        finally:
            torch.cuda.set_sync_debug_mode("default")
    finite.check()
