"""What only a GPU can show; left out where there is none. By estimate two minutes, most of them the compiler's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model import compilation, memory
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.group_norm import can_fuse
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient, _Finite, _Trainer
from partcraft_kedro.training.step import draw_ahead, draw_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
OF = TrainOptions(method="partcraft", steps=4, batch_size=2, rank=2, attention_weight=1.0)


def create(device: str, precision: str, unet: str = "lora") -> PartCraft:
    learns = {"unet": unet, "rank": 2, "lora_layers": "cross", "bottleneck_layers": 2, "seed": 0}
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


def peak(work: Callable[[], object]) -> int:
    """Bytes beyond what was held before; done once before, as libraries keep what they set up."""
    work()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - held


PICTURES = 32  # of tiny: enough for the libraries' own memory not to matter
DRAWN = ["a photo of a [0,1] [1,2]"] * PICTURES, [str(number) for number in range(PICTURES)]


def test_a_step_takes_the_memory_that_is_predicted(cache: TrainingCache) -> None:
    model, of = create("cuda", "bfloat16"), OF.model_copy(update={"batch_size": PICTURES})
    with AttentionCapture(model.pipeline.unet) as capture:
        gradient = Gradient(model, capture, of, micro_batch=PICTURES)
        batch = draw_batch(model, cache, of, 0)
        assert memory.step_memory(model, capture, PICTURES) == pytest.approx(peak(lambda: gradient(batch)), rel=0.05)


def test_sampling_takes_the_memory_that_is_predicted() -> None:
    model, of = create("cuda", "bfloat16"), SamplingOptions(steps=2, guidance_scale=2.0, batch_size=PICTURES)
    taken = peak(lambda: sample_pictures(model, *DRAWN, of, 0))
    assert memory.sampling_memory(model, PICTURES, guided=True) == pytest.approx(taken, rel=0.05)


def test_memory_that_torch_keeps_is_free() -> None:
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    before = memory.free_memory(device)
    kept = torch.empty(2**30, dtype=torch.uint8, device=device)
    assert memory.free_memory(device) < before - 2**29
    del kept
    assert torch.cuda.memory_reserved() >= 2**30
    assert memory.free_memory(device) > before - 2**28


@pytest.mark.parametrize("small", [True, False], ids=["graphs", "blocks"])
def test_a_compiled_step_has_the_same_gradient_in_one_pass_and_in_two(
    cache: TrainingCache, monkeypatch, small: bool
) -> None:
    """As one graph of kernels, which CUDA launches at once, or block by block; a second pass finds them compiled."""
    monkeypatch.setattr(compilation, "_SMALL", compilation._SMALL if small else 0)
    of = OF.model_copy(update={"batch_size": 4})

    def gradients(compiled: bool, pictures: int) -> list[dict[str, torch.Tensor]]:
        model = create("cuda", "float32")
        found = []
        with AttentionCapture(model.pipeline.unet) as capture:
            gradient = Gradient(model, capture, of.model_copy(update={"compile": compiled}), micro_batch=pictures)
            for step in range(4):  # CUDA graphs are recorded in the second or third
                gradient(draw_batch(model, cache, of, step))
                found.append({name: parameter.grad.clone() for name, parameter in model.trainable().items()})
                for parameter in model.trainable().values():
                    parameter.grad = None
        return found

    expected = gradients(False, 4)
    torch._dynamo.utils.counters.clear()
    for pictures in (4, 2):
        for one, other in zip(gradients(True, pictures), expected, strict=True):
            for name, slope in other.items():
                assert (one[name] - slope).norm() <= 0.01 * slope.norm() + 1e-7, name
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


def test_compiled_pictures_are_the_same(monkeypatch) -> None:
    monkeypatch.setattr(compilation, "_SMALL", 0)
    model = create("cuda", "float32", unet="frozen")  # an adapter's LoRA is in the weights when it is drawn with
    of = SamplingOptions(steps=4, guidance_scale=2.0, batch_size=2)
    prompts, names = (some[:2] for some in DRAWN)
    expected = sample_pictures(model, prompts, names, of, 0)
    compilation.compile_networks([model.pipeline.unet], model.device, graphs=False)
    torch.testing.assert_close(sample_pictures(model, prompts, names, of, 0), expected, rtol=0, atol=0.01)
