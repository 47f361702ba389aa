"""What each stage needs at the batch sizes of conf/cub and Stable Diffusion 1.5's true size: under 12 GiB.

On fake tensors, which have shapes and no content: the stages' own code runs, until a number is asked for.
`python tests/shapes/test_shapes.py` counts a training step and a picture of 2.1 and XL too.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from omegaconf import OmegaConf
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from transformers import (
    BitImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from partcraft_kedro.evaluation import scores
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model import base, memory
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.base import Base, load_base, picture_size, text_encoders
from partcraft_kedro.model.memory import LiveMemory
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import FeaturesOptions, SamplingOptions, TrainOptions
from partcraft_kedro.training import cache as training_cache
from partcraft_kedro.training.cache import TrainingCache, write_latents
from partcraft_kedro.training.loop import Gradient
from partcraft_kedro.training.step import draw_batch

PROJECT = Path(__file__).parents[2]
CONFIGS = PROJECT.parent / "shared/configs"
MOST = 12 * 2**30
FAKE = FakeTensorMode(allow_non_fake_inputs=True)
pytestmark = pytest.mark.skipif(not CONFIGS.exists(), reason="needs Stable Diffusion's configurations")


def use_fakes(network: nn.Module) -> None:
    """Put a fake in the place of every weight that is none."""
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None and not isinstance(tensor, FakeTensor):
                    own[name] = FAKE.from_tensor(tensor)


def load_fakes(folder: str, **_: object) -> Base:
    """What `from_pretrained` would load."""
    configs = Path(folder)

    def config(component: str) -> dict:
        return json.loads((configs / component / "config.json").read_text())

    components: dict[str, Any] = {"scheduler": DDPMScheduler.from_pretrained(configs / "scheduler")}
    with FAKE:
        components["unet"] = UNet2DConditionModel.from_config(config("unet"))
        components["vae"] = AutoencoderKL.from_config(config("vae"))
    readers = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    for name, reader in readers.items():
        if (configs / name).exists():
            with FAKE:
                components[name] = reader(CLIPTextConfig(**config(name)))
            words = components[name].get_input_embeddings()  # the one weight of which a fresh model asks the content
            words.weight = nn.Parameter(torch.zeros(words.weight.shape))
            place = name.replace("text_encoder", "tokenizer")
            components[place] = CLIPTokenizer.from_pretrained(configs / place)
    if "text_encoder_2" in components:
        return StableDiffusionXLPipeline(**components, add_watermarker=False)
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**components, **unused)


def parameters_of_cub() -> dict:
    """Of `--env=cub`."""
    layers = [OmegaConf.load(PROJECT / f"conf/{layer}/parameters.yml") for layer in ("base", "cub")]
    return OmegaConf.to_container(OmegaConf.merge(*layers))


def give_fakes(patch: pytest.MonkeyPatch) -> None:
    """In the place of base models."""
    patch.setattr(base, "load_whole", lambda *_, **__: None)  # weights, which `load_fakes` has fakes of
    for pipeline in (StableDiffusionPipeline, StableDiffusionXLPipeline):
        patch.setattr(pipeline, "from_pretrained", load_fakes)
        patch.setattr(pipeline, "to", lambda pipeline, _: pipeline)


def make_model(name: str, cub: dict) -> PartCraft:
    options = TrainOptions(**cub["train"])
    model = PartCraft.create(
        str(CONFIGS / name),
        "cpu",
        "bfloat16",
        variants=[cub["parts"]["variants"]] * (cub["parts"]["parts"] + 1),
        **options.model_dump(include={"unet", "rank", "lora_layers", "bottleneck_layers", "seed"}),
    )
    for network in networks_of(model):
        use_fakes(network)
    return model


@pytest.fixture(scope="module")
def cub() -> dict:
    return parameters_of_cub()


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch) -> AutoencoderKL:
    give_fakes(monkeypatch)
    return load_base(str(CONFIGS / "sd15"), "cpu").vae


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, cub: dict) -> PartCraft:
    give_fakes(monkeypatch)
    return make_model("sd15", cub)


def networks_of(model: PartCraft) -> list[nn.Module]:
    return [model.pipeline.unet, model.pipeline.vae, *text_encoders(model.pipeline), model.part_encoder]


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
    paths = [tmp_path / f"{i}.png" for i in range(training_cache.SHARD)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)

    def write() -> None:
        with pytest.raises(DataDependentOutputException):  # all are encoded: are they finite?
            write_latents(vae, paths, 512, tmp_path)

    assert 0.9 * 2**30 < peak(write, [vae]) < 2 * 2**30


def memory_of_step(model: PartCraft, cub: dict, batch_size: int) -> int:
    options = TrainOptions(**cub["train"] | {"batch_size": batch_size})
    side = model.pipeline.unet.config.sample_size
    shard = torch.zeros(2, 2, 4, side, side, dtype=torch.float16)
    codes = np.zeros((2, cub["parts"]["parts"] + 1), int)
    cache = TrainingCache([shard], [shard], torch.zeros(2, 2, 16, 16, dtype=torch.uint8), codes)

    def step() -> None:
        with AttentionCapture(model.pipeline.unet) as capture:
            gradient = Gradient(model, capture, options, micro_batch=options.batch_size)
            gradient(draw_batch(model, cache, options, 0))

    moments = 8 * sum(parameter.numel() for parameter in model.trainable().values())
    return peak(step, networks_of(model)) + moments


def memory_of_sampling(model: PartCraft, cub: dict, batch_size: int) -> int:
    options = SamplingOptions(**cub["generate"]["sampling"] | {"steps": 1, "batch_size": batch_size})
    prompts, names = ["a photo of a [0,1] [1,2]"] * batch_size, [str(i) for i in range(batch_size)]
    memory._chosen[model] = {(batch_size, True): batch_size}  # whatever this machine has free
    return peak(lambda: sample_pictures(model, prompts, names, options, 0), networks_of(model))


def test_a_training_step(model: PartCraft, cub: dict) -> None:
    assert 3 * 2**30 < memory_of_step(model, cub, TrainOptions(**cub["train"]).batch_size) < MOST


def test_sampling(model: PartCraft, cub: dict) -> None:
    batch_size = SamplingOptions(**cub["generate"]["sampling"]).batch_size
    taken = memory_of_sampling(model, cub, batch_size)
    assert 3 * 2**30 < taken < MOST
    held = [tensor for network in networks_of(model) for tensor in [*network.parameters(), *network.buffers()]]
    assert memory.sampling_memory(model, batch_size, guided=True) == pytest.approx(
        taken - sum(tensor.nbytes for tensor in held), rel=0.05
    )


def test_ceilings(vae: AutoencoderKL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "from_vae", lambda pictures: pictures)  # they have no content to show
    pictures = np.zeros((scores.BATCH, 512, 512, 3), np.uint8)
    assert 0.9 * 2**30 < peak(lambda: scores.through_vae(vae, pictures), [vae]) < 2 * 2**30


def count_bases() -> None:
    """Prints what one picture needs, for docs/hardware.md: too long for a test."""
    options = parameters_of_cub()
    for name in ("sd15", "sd21", "sdxl"):
        with pytest.MonkeyPatch.context() as patch:
            give_fakes(patch)
            model = make_model(name, options)
            step, picture = (count(model, options, 1) / 2**30 for count in (memory_of_step, memory_of_sampling))
            print(f"{name}, {picture_size(model.pipeline)} pixels: step {step:.1f} GiB, picture {picture:.1f} GiB")


if __name__ == "__main__":
    count_bases()
