"""What each stage needs at the batch sizes of conf/cub and Stable Diffusion 1.5's true size: under 12 GiB.

On fake tensors, which have shapes and no content: the stages' own code runs, until a number is asked for.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from transformers import (
    BitImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from partcraft_kedro.evaluation import scores
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model import base
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import load_base
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import FeaturesOptions, SamplingOptions, TrainOptions
from partcraft_kedro.training import cache as training_cache
from partcraft_kedro.training.cache import TrainingCache, write_latents
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.memory import LiveMemory
from partcraft_kedro.training.step import draw_batch

PROJECT = Path(__file__).parents[2]
SD15 = PROJECT.parent / "shared/configs/sd15"
MOST = 12 * 2**30
FAKE = FakeTensorMode(allow_non_fake_inputs=True)
pytestmark = pytest.mark.skipif(not SD15.exists(), reason="needs Stable Diffusion 1.5's configuration")


def use_fakes(network: nn.Module) -> None:
    """Put a fake in the place of every weight that is none."""
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None and not isinstance(tensor, FakeTensor):
                    own[name] = FAKE.from_tensor(tensor)


def load_fakes(*_: object, **__: object) -> StableDiffusionPipeline:
    """What `StableDiffusionPipeline.from_pretrained` would load."""

    def config(component: str) -> dict:
        return json.loads((SD15 / component / "config.json").read_text())

    with FAKE:
        unet = UNet2DConditionModel.from_config(config("unet"))
        vae = AutoencoderKL.from_config(config("vae"))
        text_encoder = CLIPTextModel(CLIPTextConfig(**config("text_encoder")))
    words = text_encoder.get_input_embeddings()  # the one weight of which a fresh model asks the content
    words.weight = nn.Parameter(torch.zeros(words.weight.shape))
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(SD15 / "tokenizer"),
        unet=unet,
        scheduler=DDPMScheduler.from_pretrained(SD15 / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def cub() -> dict:
    """The parameters of `--env=cub`."""
    layers = [OmegaConf.load(PROJECT / f"conf/{layer}/parameters.yml") for layer in ("base", "cub")]
    return OmegaConf.to_container(OmegaConf.merge(*layers))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> str:
    """What to give as `base.model`."""
    monkeypatch.setattr(base, "load_whole", lambda *_, **__: None)  # weights, which `load_fakes` has fakes of
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", load_fakes)
    monkeypatch.setattr(StableDiffusionPipeline, "to", lambda pipeline, _: pipeline)
    return str(SD15)


@pytest.fixture
def vae(published: str) -> AutoencoderKL:
    return load_base(published, "cpu").vae


@pytest.fixture
def model(published: str, cub: dict) -> PartCraft:
    options = TrainOptions(**cub["train"])
    model = PartCraft.create(
        published,
        "cpu",
        "bfloat16",
        variants=[cub["parts"]["variants"]] * (cub["parts"]["parts"] + 1),
        **options.model_dump(include={"unet", "rank", "lora_layers", "bottleneck_layers", "seed"}),
    )
    for network in networks_of(model):
        use_fakes(network)
    return model


def networks_of(model: PartCraft) -> list[nn.Module]:
    pipeline = model.pipeline
    return [pipeline.unet, pipeline.vae, pipeline.text_encoder, model.part_encoder]


def peak(work: Callable[[], object], networks: list[nn.Module]) -> int:
    """The most bytes that are alive at once, the networks included."""
    weights = [tensor for network in networks for tensor in [*network.parameters(), *network.buffers()]]
    with LiveMemory(weights) as live:
        work()
    return live.peak + sum(tensor.nbytes for tensor in weights)


def test_features(cub: dict, tmp_path: Path) -> None:
    """DINOv2's base size, in one block, as each has the memory of the one before; its weights count twelve times."""
    Dinov2Model(Dinov2Config(image_size=518, patch_size=14, num_hidden_layers=1)).save_pretrained(tmp_path)
    crop = {"height": 224, "width": 224}
    BitImageProcessorPil(size={"shortest_edge": 256}, crop_size=crop).save_pretrained(tmp_path)
    options = FeaturesOptions(**cub["features"])
    extractor = FeatureExtractor(str(tmp_path), mirrored=options.mirrored, device="cpu")
    use_fakes(extractor.network)
    pictures = np.zeros((options.batch_size, 224, 224, 3), np.uint8)
    block = sum(weight.nbytes for weight in extractor.network.encoder.parameters())
    assert 2**28 < peak(lambda: extractor(pictures), [extractor.network]) + 11 * block < MOST


def test_latents(vae: AutoencoderKL, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(training_cache._SHARD)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)

    def write() -> None:
        with pytest.raises(DataDependentOutputException):  # all are encoded: are they finite?
            write_latents(vae, paths, 512, tmp_path)

    assert 0.9 * 2**30 < peak(write, [vae]) < 2 * 2**30


def test_a_training_step(model: PartCraft, cub: dict) -> None:
    options = TrainOptions(**cub["train"])
    shard = torch.zeros(2, 2, 4, 64, 64, dtype=torch.float16)
    codes = np.zeros((2, cub["parts"]["parts"] + 1), int)
    cache = TrainingCache([shard], [shard], torch.zeros(2, 2, 16, 16, dtype=torch.uint8), codes)

    def step() -> None:
        with AttentionCapture(model.pipeline.unet) as capture:
            gradient = Gradient(model, capture, options, micro_batch=options.batch_size)
            gradient(draw_batch(model, cache, options, 0))

    moments = 8 * sum(parameter.numel() for parameter in model.trainable().values())
    assert 3 * 2**30 < peak(step, networks_of(model)) + moments < MOST


def test_sampling(model: PartCraft, cub: dict) -> None:
    options = SamplingOptions(**cub["generate"]["sampling"] | {"steps": 1})
    prompts, names = ["a photo of a [0,1] [1,2]"] * options.batch_size, [str(i) for i in range(options.batch_size)]
    assert 3 * 2**30 < peak(lambda: sample_pictures(model, prompts, names, options, 0), networks_of(model)) < MOST


def test_ceilings(vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "from_vae", lambda pictures: pictures)  # they have no content to show
    pictures = np.zeros((scores.BATCH, 512, 512, 3), np.uint8)
    assert 0.9 * 2**30 < peak(lambda: scores.through_vae(vae, pictures), [vae]) < 2 * 2**30
