"""The estimate against what was measured, and against what the process really takes."""

import json
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from partcraft_kedro.allocator import keep_freed_memory
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.sampling import Sampler, sample_pictures
from partcraft_kedro.model import memory
from partcraft_kedro.model.attention import AttentionCapture, attend_fused, attend_in_float32
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.model.streamlined import streamline
from partcraft_kedro.options import SamplingOptions

SD15 = Path(__file__).parents[3] / "shared/configs/sd15/unet/config.json"


@pytest.mark.skipif(not SD15.exists(), reason="needs Stable Diffusion 1.5's configuration")
@pytest.mark.parametrize(("device", "gibibytes"), [("cpu", 0.874), ("cuda", 0.687)])
def test_what_stable_diffusion_takes_for_a_picture(device: str, gibibytes: float) -> None:
    """Of 512 pixels, in bfloat16, as each device computes."""
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads(SD15.read_text())).to(torch.bfloat16).requires_grad_(False)
        targets = [f"attn2.{projection}" for projection in ("to_q", "to_k", "to_v", "to_out.0")]
        unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    if device == "cuda":
        streamline(unet, torch.bfloat16, torch.channels_last, fused=True)
        attend_fused(unet)
    else:
        streamline(unet, torch.bfloat16, torch.contiguous_format)
        attend_in_float32(unet)
    model = SimpleNamespace(
        pipeline=SimpleNamespace(unet=unet, text_encoder=SimpleNamespace(dtype=torch.bfloat16)),
        prompts=SimpleNamespace(tokenizers=[SimpleNamespace(model_max_length=77)], text_encoders=[None]),
        part_encoder=SimpleNamespace(part_count=5),
        device=torch.device(device),
    )
    with AttentionCapture(unet) as capture:
        one, two = (memory.step_memory(model, capture, pictures) for pictures in (1, 2))
        assert (two - one) / 2**30 == pytest.approx(gibibytes, rel=0.03)
        unet.enable_gradient_checkpointing()
        unet.train()
        assert memory.step_memory(model, capture, 2) - memory.step_memory(model, capture, 1) < 0.5 * (two - one)


def test_what_the_process_keeps_is_given_back_before_free_memory_is_read() -> None:
    """Its own share is read: what the system calls available changes with all that runs beside."""
    keep_freed_memory()
    kept = [torch.ones(2**22) for _ in range(60)]  # 16 MiB each
    del kept
    process = psutil.Process()
    before = process.memory_info().rss
    memory.free_memory(torch.device("cpu"))
    assert before - process.memory_info().rss > 500 * 2**20


def test_as_many_pictures_a_pass_as_memory_holds(monkeypatch, create_tiny) -> None:
    model = create_tiny()
    with AttentionCapture(model.pipeline.unet) as capture:
        one, two, four = (memory.step_memory(model, capture, pictures) for pictures in (1, 2, 4))
        assert four - two == pytest.approx(2 * (two - one), rel=0.05)
        learnt = 12 * sum(parameter.numel() for parameter in model.trainable().values())

        def free(pictures: float) -> None:
            need = learnt + one + (pictures - 1) * (two - one)
            monkeypatch.setattr(memory, "free_memory", lambda device: need / 0.9)

        free(2.5)
        assert memory.choose_micro_batch(model, capture, 8) == 2
        free(20)
        assert memory.choose_micro_batch(model, capture, 8) == 8
        free(0.5)
        with pytest.raises(UserError, match=r"Training needs 0\.\d\d GiB for one picture.*gradient_checkpointing"):
            memory.choose_micro_batch(model, capture, 8)
        # The estimate leaves no trace: the model still trains.
        assert all(parameter.grad is None for parameter in model.trainable().values())


PROMPTS, NAMES = ["a photo of a [0,1] [1,2]"] * 4, ["a", "b", "c", "d"]


def sampling(**changes: object) -> SamplingOptions:
    return SamplingOptions(**{"steps": 1, "guidance_scale": 2.0, "batch_size": 4} | changes)


def held(model: PartCraft) -> list[torch.Tensor]:
    """All of a model that is in memory anyway."""
    networks = (model.pipeline.unet, model.pipeline.vae, model.pipeline.text_encoder, model.part_encoder)
    return [tensor for network in networks for tensor in [*network.parameters(), *network.buffers()]]


@pytest.mark.parametrize(("guidance", "slicing"), [(2.0, False), (1.0, False), (2.0, True)])
def test_the_estimate_of_sampling_is_what_the_sampler_takes(create_tiny, guidance: float, slicing: bool) -> None:
    """Of tensors with content, counted in the same way; the size of the batch was settled before."""
    model, options = create_tiny(), sampling(guidance_scale=guidance)
    if slicing:
        model.pipeline.vae.enable_slicing()
    sample_pictures(model, PROMPTS, NAMES, options, 0)
    with memory.LiveMemory(held(model)) as live:
        sample_pictures(model, PROMPTS, NAMES, options, 0)
    estimate = memory.sampling_memory(model, 4, guided=guidance > 1)
    assert live.peak == pytest.approx(estimate, rel=0.1)


def test_the_vae_s_estimate_knows_whether_it_takes_one_by_one(create_tiny) -> None:
    pipeline = create_tiny().pipeline
    for need in (memory.encoding_memory, memory.decoding_memory):
        pipeline.vae.disable_slicing()
        one, four = need(pipeline, 1), need(pipeline, 4)
        assert four == pytest.approx(4 * one, rel=0.05)
        pipeline.vae.enable_slicing()
        assert one <= need(pipeline, 4) < 1.5 * one


def test_as_many_pictures_are_drawn_at_once_as_memory_holds(monkeypatch, create_tiny) -> None:
    model = create_tiny()
    one, four = (memory.sampling_memory(model, pictures, guided=True) for pictures in (1, 4))
    passes = []

    def count(_: torch.nn.Module, arguments: tuple) -> None:
        if not isinstance(arguments[0], FakeTensor):
            passes.append(len(arguments[0]) // 2)  # guidance draws each twice

    model.pipeline.unet.conv_in.register_forward_pre_hook(count)

    def draw(pictures: float) -> list[int]:
        need = one + (pictures - 1) * (four - one) / 3
        monkeypatch.setattr(memory, "free_memory", lambda device: need / 0.9)
        passes.clear()
        list(Sampler(model, sampling(), 0).batches(PROMPTS, NAMES))
        return list(passes)

    assert draw(2.5) == [2, 2]
    assert draw(9) == [2, 2]  # it is asked once
    memory._chosen.clear()
    assert draw(9) == [4]
    memory._chosen.clear()
    with pytest.raises(UserError, match=r"Sampling needs 0\.\d\d GiB for one picture.*cpu has .*base\.device=cpu"):
        draw(0.5)


def test_memory_is_counted_of_what_is_compiled_and_it_is_compiled_still(create_tiny) -> None:
    model, graphs = create_tiny(), []
    block = model.pipeline.unet.mid_block.attentions[0].transformer_blocks[0]
    expected = memory.sampling_memory(model, 2, guided=True)

    def note(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    block.compile(backend=note)
    assert memory.sampling_memory(model, 2, guided=True) == expected
    assert not graphs
    sample_pictures(model, PROMPTS[:1], NAMES[:1], sampling(), 0)
    assert len(graphs) == 1
