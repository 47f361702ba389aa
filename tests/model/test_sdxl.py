"""Stable Diffusion XL: two text encoders, a token that is a pair, a summary of the prompt, sizes."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.sampling import Sampler, sample_pictures
from partcraft_kedro.model import compilation
from partcraft_kedro.model.attention import AttentionCapture, attention_layers
from partcraft_kedro.model.base import load_base, picture_size
from partcraft_kedro.model.injection import PartPrompts
from partcraft_kedro.model.memory import step_memory
from partcraft_kedro.model.part_encoder import PartEncoder
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.randomness import torch_generator
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.step import draw_batch

WIDTHS = [16, 24]
WORDS = "a photo of a red bird on sand"
SAMPLING = SamplingOptions(steps=2, guidance_scale=3.0)
TINY_XL = {"unet": "lora", "rank": 2, "lora_layers": "cross", "bottleneck_layers": 2, "seed": 0}


@pytest.fixture
def model(small_xl: Path) -> PartCraft:
    return PartCraft.create(str(small_xl), "cpu", "float32", variants=[3, 4, 4], **TINY_XL)


def test_words_are_encoded_as_diffusers_does(small_xl: Path, model: PartCraft) -> None:
    words, _, summary, _ = load_base(str(small_xl), "cpu").encode_prompt(WORDS, do_classifier_free_guidance=False)
    told = model.prompts.encode(model.prompts.tokenize([WORDS])[0])
    torch.testing.assert_close(told.words, words)
    torch.testing.assert_close(told.pooled, summary)


def test_a_token_that_is_embedded_as_a_word_says_what_the_word_says(small_xl: Path) -> None:
    """For both text encoders, and for the summary of the whole prompt, which lies at the end of text."""
    pipeline = load_base(str(small_xl), "cpu")
    bird = pipeline.tokenizer.convert_tokens_to_ids("bird</w>")
    embeddings = [
        encoder.get_input_embeddings().weight[bird] for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)
    ]
    encoder = PartEncoder(1, 2, WIDTHS, layers=0, scales=[1.0, 1.0])
    encoder.parts.weight.data.zero_()
    encoder.variants.weight.data[3] = torch.cat(embeddings)
    prompts = PartPrompts(pipeline, encoder)
    by_word, by_token = (prompts.encode(prompts.tokenize([f"a red {noun} on sand"])[0]) for noun in ("bird", "[1,1]"))
    torch.testing.assert_close(by_token.words, by_word.words)
    torch.testing.assert_close(by_token.pooled, by_word.pooled)
    other = prompts.encode(prompts.tokenize(["a red [1,0] on sand"])[0])
    assert not torch.allclose(other.pooled, by_word.pooled)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_networks_are_compiled_to_one_graph(model: PartCraft, monkeypatch, device: str) -> None:
    """As a whole on a CPU, by blocks on a GPU. Of the compiler, the tracing alone; all counts as large."""
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    monkeypatch.setattr(compilation, "_SMALL", 0)
    ids = model.prompts.tokenize(["a photo of a [0,1] [1,2] [2,3]"])[0]
    plain = model.prompts.encode(ids)
    compiled = model.prompts.text_encoders
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compilation.compile_networks(compiled, torch.device(device), graphs=False)
    told = model.prompts.encode(ids)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["graph_break"]
    torch.testing.assert_close(told.words, plain.words)
    torch.testing.assert_close(told.pooled, plain.pooled)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_each_text_encoder_s_embeddings_start_at_the_scale_of_its_words(layers: int) -> None:
    encoder = PartEncoder(5, 16, WIDTHS, layers=layers, scales=[0.5, 2.0])
    one, two = encoder.all_embeddings()
    assert [one.shape, two.shape] == [(96, 16), (96, 24)]
    assert (one.std().item(), two.std().item()) == (pytest.approx(0.5, rel=1e-4), pytest.approx(2.0, rel=1e-4))


@pytest.mark.parametrize("negative", ["", "sand"])
def test_a_picture_is_what_the_pipeline_draws_of_its_prompt(small_xl: Path, model: PartCraft, negative: str) -> None:
    """With nothing to lead away from, from zeros, as SDXL was trained."""
    options = SAMPLING.model_copy(update={"negative_prompt": negative, "scheduler": "model"})
    [found] = sample_pictures(model, [WORDS], ["one"], options, seed=3)
    [expected] = load_base(str(small_xl), "cpu")(
        WORDS,
        negative_prompt=negative or None,
        latents=torch.randn((1, 4, 16, 16), generator=torch_generator(3, "picture", "one")),
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="pt",
    ).images
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.fixture
def gradient(model: PartCraft) -> Callable[[], float]:
    """Leaves the gradient of one batch's loss in the parameters, and returns the loss."""
    options = TrainOptions(batch_size=2, steps=1, attention_weight=0.5)
    shard = 0.5 + torch.randn((2, 2, 4, 16, 16), generator=torch.Generator().manual_seed(0)).half()
    maps = torch.arange(2 * 2 * 4 * 4).view(2, 2, 4, 4).remainder(3).to(torch.uint8)
    cache = TrainingCache([shard], [shard.abs() / 9], maps, np.array([[0, 1, 2], [1, 0, 3]]))
    batch = draw_batch(model, cache, options, 0)

    def compute() -> float:
        for parameter in model.trainable().values():
            parameter.grad = None
        with AttentionCapture(model.pipeline.unet) as capture:
            return float(Gradient(model, capture, options, micro_batch=2)(batch)["loss"])

    return compute


@pytest.mark.parametrize(
    ("of_which", "step"),  # the table's slope is small: float32 tells losses apart that are farther away
    [("the table", 0.02), ("the first head", 0.005), ("the second head", 0.005)],
)
def test_the_pair_s_gradient_is_that_of_finite_differences(
    model: PartCraft, gradient, of_which: str, step: float
) -> None:
    table, head = model.part_encoder.variants.weight, model.part_encoder.bottleneck[-1].weight
    weight = table if of_which == "the table" else head
    rows = {"the first head": slice(WIDTHS[0]), "the second head": slice(WIDTHS[0], None)}.get(of_which, slice(None))
    gradient()
    slope = torch.zeros_like(weight)
    slope[rows] = weight.grad[rows]
    direction, losses = slope / slope.norm(), []
    for way in (step, -2 * step):
        weight.data.add_(direction, alpha=way)
        losses.append(gradient())
    assert slope.norm() > 1e-4
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope.norm().item(), rel=0.02)


def test_attention_is_read_at_a_quarter_of_the_latents(model: PartCraft) -> None:
    layers = attention_layers(model.pipeline.unet)
    assert {layer.split(".attentions")[0] for layer in layers} == {"down_blocks.2", "mid_block", "up_blocks.0"}
    assert len(layers) == 3 * (2 + 1 + 3)
    maps: list[torch.Tensor] = []
    list(Sampler(model, SAMPLING, 0, attention=maps).batches(["a [1,2]"], ["0"]))
    assert maps[0].shape == (1, 3, 4, 4)
    assert maps[0][0, 1].any()


def test_an_adapter_draws_the_same_after_it_was_saved(model: PartCraft, small_xl: Path, tmp_path: Path) -> None:
    for name, parameter in model.trainable().items():
        if "lora_B" in name:  # zero in a fresh one
            torch.nn.init.normal_(parameter, std=0.1)
    prompts, names = ["a photo of a [0,1] [1,2]"], ["one"]
    expected = sample_pictures(model, prompts, names, SAMPLING, seed=3)
    model.save_adapter(tmp_path / "adapter", {})
    again = PartCraft.load(tmp_path / "adapter", "cpu", "float32")
    torch.testing.assert_close(sample_pictures(again, prompts, names, SAMPLING, seed=3), expected, atol=1e-3, rtol=0)
    plain = sample_pictures(
        PartCraft.create(str(small_xl), "cpu", "float32", variants=[3, 4, 4], **TINY_XL), prompts, names, SAMPLING, 3
    )
    assert (plain - expected).abs().max() > 1e-2


def test_the_memory_of_a_step_is_known_before_it(model: PartCraft) -> None:
    with AttentionCapture(model.pipeline.unet) as capture:
        one, two = (step_memory(model, capture, pictures) for pictures in (1, 2))
    assert 0 < one < two


def test_pictures_of_another_size(small_xl: Path) -> None:
    pipeline = load_base(str(small_xl), "cpu", size=64)
    assert (picture_size(pipeline), pipeline.unet.config.sample_size) == (64, 32)
    model = PartCraft.create(str(small_xl), "cpu", "float32", size=64, variants=[3, 4, 4], **TINY_XL)
    told = []
    unet = model.pipeline.unet
    unet.register_forward_pre_hook(lambda _, __, given: told.append(given["added_cond_kwargs"]), with_kwargs=True)
    assert sample_pictures(model, ["a [1,2]"], ["0"], SAMPLING, 0).shape == (1, 3, 64, 64)
    assert {tuple(sizes.tolist()) for of_step in told for sizes in of_step["time_ids"]} == {(64, 64, 0, 0, 64, 64)}
    assert model.prompts.encode(model.prompts.tokenize(["a [1,2]"])[0]).sizes.tolist() == [[64, 64, 0, 0, 64, 64]]
    with pytest.raises(UserError, match=r"base\.size=50 is not to be had of this model: give a multiple of 8"):
        load_base(str(small_xl), "cpu", size=50)
