"""What a GPU computes, in its layout and by its attention, and compiled by blocks, on a CPU."""

import dataclasses
import functools
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.sampling import Sampler, sample_pictures
from partcraft_kedro.model import base, compilation, memory, partcraft, streamlined
from partcraft_kedro.model.attention import AttentionCapture, attend_fused
from partcraft_kedro.model.compilation import compile_networks
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.model.streamlined import LeanGroupNorm
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.training import loop
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.step import draw_ahead, draw_batch

VARIANTS = [3, 4, 4]


def options(**changes: object) -> TrainOptions:
    few = {"method": "partcraft", "steps": 4, "batch_size": 2, "rank": 2, "attention_weight": 1.0, "seed": 0}
    return TrainOptions(**few | changes)


def create(of: TrainOptions, precision: str, base: str = "tiny", size: int | None = 64) -> PartCraft:
    """With LoRA away from its start, where half of its gradient is zero."""
    learns = of.model_dump(include={"unet", "rank", "lora_layers", "bottleneck_layers", "seed"})
    model = PartCraft.create(base, "cpu", precision, size=size, variants=VARIANTS, **learns)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.trainable().items():
        if "lora" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def cache() -> TrainingCache:
    """Of pictures of 64 pixels."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 5, 4, 32, 32, generator=generator).half()
    label_maps = torch.randint(0, 3, (2, 5, 8, 8), generator=generator, dtype=torch.uint8)
    codes = np.array([[0, 1, 2], [1, -1, 0], [2, 3, 1], [0, 0, 0], [1, 2, -1]])
    return TrainingCache([latents], [latents.abs() * 0.1], label_maps, codes)


@pytest.fixture
def as_it_comes(monkeypatch: pytest.MonkeyPatch):
    """Makes models in float32 whose networks are diffusers', transformers' and PEFT's own."""

    def make(of: TrainOptions, *whose: object) -> PartCraft:
        with monkeypatch.context() as patched:
            patched.setattr(partcraft, "compute_in", lambda pipeline, dtype: None)
            return create(of, "float32", *whose)

    return make


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    """Makes models as on a GPU, but for what runs there alone."""

    def in_its_layout(unet: UNet2DConditionModel, dtype: torch.dtype, _: torch.memory_format, *, fused: bool) -> None:
        streamlined.streamline(unet, dtype, torch.channels_last, fused=fused)

    def make(of: TrainOptions, precision: str, *whose: object) -> PartCraft:
        with monkeypatch.context() as patched:
            patched.setattr(base, "streamline", in_its_layout)
            patched.setattr(base, "attend_in_float32", lambda unet, *_: attend_fused(unet))
            return create(of, precision, *whose)

    return make


def gradients(model: PartCraft, cache: TrainingCache, of: TrainOptions) -> tuple[dict, dict]:
    """The losses and the gradients of a step."""
    with AttentionCapture(model.pipeline.unet) as capture:
        losses = Gradient(model, capture, of, micro_batch=of.batch_size)(draw_batch(model, cache, of, 0))
    return losses, {name: parameter.grad for name, parameter in model.trainable().items()}


def apart(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The length of the difference, as a share of the length."""
    assert found.keys() == expected.keys()
    difference, length = (
        torch.cat([tensor.flatten() for tensor in tensors]).norm().item()
        for tensors in ([found[name] - expected[name] for name in expected], expected.values())
    )
    return difference / length


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora_layers": "all"}, {"unet": "key_value"}, {"unet": "full"}, {"gradient_checkpointing": True}],
    ids=["lora", "all", "key_value", "full", "checkpointing"],
)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_mathematics_are_the_same(
    cache: TrainingCache, as_it_comes, as_on_a_gpu, changes: dict, device: str
) -> None:
    """In float32 to rounding; in bfloat16 losses to its spacing, 2^-7, and gradients to 2%."""
    of, make = options(**changes), create if device == "cpu" else as_on_a_gpu
    expected, slopes = gradients(as_it_comes(of), cache, of)
    for precision, of_loss, of_gradient in (("float32", 1e-5, 1e-5), ("bfloat16", 2**-7, 0.02)):
        losses, found = gradients(make(of, precision), cache, of)
        for name, loss in expected.items():
            assert losses[name].dtype == torch.float32
            assert losses[name].item() == pytest.approx(loss.item(), rel=of_loss), name
        for learns in ("part_encoder.", "unet."):
            of_found, of_expected = (
                {name: slope for name, slope in some.items() if name.startswith(learns)} for some in (found, slopes)
            )
            assert all(slope.dtype == torch.float32 for slope in of_found.values())
            assert apart(of_found, of_expected) < of_gradient, learns


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_sdxl_s_mathematics_are_the_same(small_xl: Path, as_it_comes, as_on_a_gpu, device: str) -> None:
    """It has two text encoders, is told sizes, and projects before it lays out anew."""
    of, make = options(), create if device == "cpu" else as_on_a_gpu
    latents = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    maps = torch.zeros(2, 2, 4, 4, dtype=torch.uint8)
    cache = TrainingCache([latents], [latents.abs() / 9], maps, np.array([[0, 1, 2], [1, 0, 3]]))
    whose = str(small_xl), None
    expected, slopes = gradients(as_it_comes(of, *whose), cache, of)
    for precision, rounding in (("float32", 1e-4), ("bfloat16", 0.03)):
        losses, found = gradients(make(of, precision, *whose), cache, of)
        assert losses["loss"].item() == pytest.approx(expected["loss"].item(), rel=rounding / 4)
        assert apart(found, slopes) < rounding


def test_all_flows_in_bfloat16_but_what_the_losses_are_made_of(cache: TrainingCache, as_on_a_gpu) -> None:
    model = as_on_a_gpu(options(), "bfloat16")
    flowing, under_autocast = {}, set()

    def note(name: str, _: nn.Module, arguments: tuple, output: object) -> None:
        under_autocast.add(torch.is_autocast_enabled("cpu"))
        tensors = [tensor for tensor in (*arguments, output) if isinstance(tensor, torch.Tensor)]
        flowing[name] = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}

    networks = {"unet": model.pipeline.unet, "text_encoder": model.pipeline.text_encoder}
    for place, network in networks.items():
        for name, module in network.named_modules():
            if name and not list(module.children()):
                module.register_forward_hook(functools.partial(note, f"{place}.{name}"))
    with AttentionCapture(model.pipeline.unet) as capture:
        Gradient(model, capture, options(), micro_batch=2)(draw_batch(model, cache, options(), 0))
        assert capture.maps().dtype == torch.float32
    assert len(flowing) > 150 and under_autocast == {False}
    assert {name for name, types in flowing.items() if types != {torch.bfloat16}} == {"unet.time_proj"}
    assert {parameter.dtype for parameter in model.trainable().values()} == {torch.float32}


def test_one_layout_flows_through_the_unet(cache: TrainingCache, as_on_a_gpu) -> None:
    """Else each convolution or normalisation would copy what comes in."""
    last, first = torch.channels_last, torch.contiguous_format
    for make, precision, layout in (
        (create, "float32", last), (create, "bfloat16", first), (as_on_a_gpu, "bfloat16", last)
    ):  # fmt: skip
        model, flows = make(options(), precision), []
        for module in model.pipeline.unet.modules():
            if isinstance(module, LeanGroupNorm):
                module.register_forward_pre_hook(
                    lambda _, arguments, layout=layout, flows=flows: flows.append(
                        arguments[0].is_contiguous(memory_format=layout)
                    )
                )
        gradients(model, cache, options())
        assert len(flows) > 30 and all(flows), (precision, layout)


def test_memory_is_counted_in_the_type_that_flows(as_on_a_gpu) -> None:
    """Also where all weights of the U-Net learn, and are in another."""
    model = as_on_a_gpu(options(unet="full"), "bfloat16")
    flowing = set()
    for name, module in model.pipeline.unet.named_modules():
        if name.endswith((".to_q", ".to_k", ".to_v")):
            module.register_forward_hook(lambda _, __, output: flowing.add(output.dtype))
    with AttentionCapture(model.pipeline.unet) as capture:
        memory.step_memory(model, capture, 1)
    assert flowing == {torch.bfloat16}


def test_pictures_are_drawn_as_by_plain_diffusers(as_it_comes, as_on_a_gpu) -> None:
    """In float32 the same, in bfloat16 nearly; in the middle of a training, too."""
    sampling = SamplingOptions(steps=2, guidance_scale=2.0, batch_size=2)
    prompts, names = ["a photo of a [0,1] [1,2]", "a photo of a [2,0]"], ["one", "two"]
    expected = sample_pictures(as_it_comes(options()), prompts, names, sampling, 0)
    for make in (create, as_on_a_gpu):
        found, half = (
            sample_pictures(make(options(), kind), prompts, names, sampling, 0) for kind in ("float32", "bfloat16")
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert 0 < (half - expected).abs().mean() < 0.02


def trace_large_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the compiler, the tracing alone; tiny counts as large."""
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    monkeypatch.setattr(compilation, "_SMALL", 0)


def test_a_compiled_block_is_one_graph_for_each_shape(cache: TrainingCache, as_on_a_gpu, monkeypatch) -> None:
    """Also for the smaller rest of a batch, and where no gradient comes in."""
    of = options(batch_size=3)
    plain, compiled = (as_on_a_gpu(of, "float32") for _ in range(2))
    kinds = set()
    for block in plain.pipeline.unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.register_forward_pre_hook(
                lambda block, arguments: kinds.add(
                    (arguments[0].shape, arguments[0].requires_grad, type(block.attn2.processor))
                )
            )
    with AttentionCapture(plain.pipeline.unet) as capture:
        Gradient(plain, capture, of, micro_batch=2)(draw_batch(plain, cache, of, 0))
    trace_large_networks(monkeypatch)
    torch._dynamo.utils.counters.clear()
    with AttentionCapture(compiled.pipeline.unet) as capture:
        gradient = Gradient(compiled, capture, of, micro_batch=2)
        compile_networks([compiled.pipeline.unet], torch.device("cuda"), graphs=True)
        gradient(draw_batch(compiled, cache, of, 0))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(kinds) > 2
    found, expected = ({n: p.grad for n, p in model.trainable().items()} for model in (compiled, plain))
    assert apart(found, expected) < 1e-5


def test_a_small_network_is_one_graph_that_is_launched_as_one(cache: TrainingCache, as_on_a_gpu, monkeypatch) -> None:
    """Its gradient derived from the trace. Of CUDA graphs: that they are asked for."""
    of, asked = options(), []
    plain, compiled = (as_on_a_gpu(of, "float32") for _ in range(2))
    _, expected = gradients(plain, cache, of)
    for module in compiled.pipeline.unet.modules():
        if isinstance(module, LeanGroupNorm):
            module.fused = True  # as it would be on a GPU, where alone it runs

    def trace(module: nn.Module, *, mode: str, fullgraph: bool) -> None:
        asked.append((mode, fullgraph))
        nn.Module.compile(module, backend="aot_eager", fullgraph=fullgraph)

    torch._dynamo.utils.counters.clear()
    with AttentionCapture(compiled.pipeline.unet) as capture:
        gradient = Gradient(compiled, capture, of, micro_batch=2)
        with monkeypatch.context() as patched:
            patched.setattr(UNet2DConditionModel, "compile", trace, raising=False)
            compile_networks([compiled.pipeline.unet], torch.device("cuda"), graphs=True)
        gradient(draw_batch(compiled, cache, of, 0))
    assert asked == [("reduce-overhead", True)]
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 500
    assert apart({name: parameter.grad for name, parameter in compiled.trainable().items()}, expected) < 1e-5


@pytest.mark.parametrize("whole", [False, True], ids=["blocks", "whole"])
def test_compiled_sampling_draws_the_same_pictures_and_each_shape_once(as_on_a_gpu, monkeypatch, whole: bool) -> None:
    """Also where maps are kept, for which each batch puts fresh processors in the five layers' place. LoRA is in the
    weights, as when an adapter is loaded."""
    model = as_on_a_gpu(options(unet="frozen"), "float32")
    sampling = SamplingOptions(steps=2, guidance_scale=2.0, batch_size=2)
    prompts, names = ["a photo of a [0,1] [1,2]", "a photo of a [2,0]"] * 2, ["a", "b", "c", "d"]
    expected = sample_pictures(model, prompts, names, sampling, 0)
    trace_large_networks(monkeypatch)
    torch._dynamo.utils.counters.clear()
    compile_networks([model.pipeline.unet], torch.device("cpu" if whole else "cuda"), graphs=False)
    batches = Sampler(model, sampling, 0, attention=[]).batches(prompts, names)
    found, graphs = [], []
    for batch in batches:
        found.append(batch)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=1e-4)
    assert graphs[0] == graphs[1] > 0


def test_pictures_that_cannot_be_compiled_whole_are_told_in_one_sentence(as_on_a_gpu, monkeypatch) -> None:
    model = as_on_a_gpu(options(), "float32")
    model.pipeline.unet.mid_block.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    trace_large_networks(monkeypatch)
    compile_networks([model.pipeline.unet], torch.device("cpu"), graphs=False)
    told = r"cannot compile base\.model \(.*\): give generate\.sampling\.compile=false\.$"
    with pytest.raises(UserError, match=told):
        sample_pictures(model, ["a photo of a [0,1]"], ["one"], SamplingOptions(steps=1), 0)


def test_what_cannot_be_compiled_whole_is_told_in_one_sentence(cache: TrainingCache, as_on_a_gpu, monkeypatch) -> None:
    trace_large_networks(monkeypatch)
    model = as_on_a_gpu(options(), "float32")
    model.pipeline.unet.down_blocks[2].attentions[0].transformer_blocks[0].register_forward_hook(
        lambda *_: torch._dynamo.graph_break()
    )
    told = r"^torch [\w.+]+ cannot compile base\.model \(.*\): give train\.compile=false\.$"
    with AttentionCapture(model.pipeline.unet) as capture:
        gradient = Gradient(model, capture, options(), micro_batch=2)
        compile_networks([model.pipeline.unet], torch.device("cuda"), graphs=True)
        with pytest.raises(UserError, match=told):
            gradient(draw_batch(model, cache, options(), 0))


def test_batches_drawn_ahead_are_those_of_their_steps(cache: TrainingCache) -> None:
    of = options(template_probability=0.5, union_sampling=True)
    model = create(of, "float32")
    ahead = list(draw_ahead(model, cache, of, range(3, 8)))
    assert len(ahead) == 5
    for step, batch in enumerate(ahead, 3):
        for name, tensor in vars(draw_batch(model, cache, of, step)).items():
            assert torch.equal(getattr(batch, name), tensor), (step, name)
    assert list(draw_ahead(model, cache, of, range(0))) == []


def test_a_training_whose_batches_are_drawn_ahead_leaves_the_same_bytes(
    cache: TrainingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was interrupted. Whatever ends it ends the thread that draws."""
    of = options(micro_batch=2, checkpoint_every=2, log_every=1)

    def learn(folder: str, on_log: Callable[..., None], shown: TrainingCache = cache) -> pd.DataFrame:
        return loop.train(create(of, "float32"), shown, of, tmp_path / folder, "f", on_log=on_log)

    def drawing() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]

    def expect(threads: int) -> Callable[..., None]:
        def on_log(step: int, _: dict[str, float]) -> None:
            assert len(drawing()) == threads
            if step == 3 and not (tmp_path / "interrupted").exists() and threads:
                (tmp_path / "interrupted").touch()
                signal.raise_signal(signal.SIGINT)

        return on_log

    expected = learn("one_by_one", expect(0))
    monkeypatch.setattr(loop, "draw_batches", draw_ahead)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        learn("ahead", expect(1))
    assert interrupted and not drawing()
    pd.testing.assert_frame_equal(learn("ahead", lambda *_: None), expected)
    for name in ("checkpoint.safetensors", "losses.csv"):
        assert (tmp_path / "ahead" / name).read_bytes() == (tmp_path / "one_by_one" / name).read_bytes()

    fewer = dataclasses.replace(cache, mean=[shard[:, :1] for shard in cache.mean])
    with pytest.raises(IndexError) as failed:  # where it is drawn
        learn("failed", lambda *_: None, fewer)
    assert failed and not drawing()
