"""Shared by all tests."""

import os
import shutil
from pathlib import Path

import pytest

from partcraft_kedro.project import lay_out

# No test talks to a network or leaves a trace outside its own folder.
os.environ["DO_NOT_TRACK"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
# Two workers run tests at once: more threads than cores would make each of them crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")
TESTS = Path(__file__).parent
# Folders and files whose tests run the command line, train, or load whole models: marked slow, all others are quick.
# They begin in this order, and before all others: a long file that began last would leave a worker idle.
SLOW = (
    *("pipelines/test_stable_diffusion.py", "training/test_distributed.py", "pipelines"),
    *("shapes", "training", "generation", "compose/test_studio.py"),
    *("compute/test_cluster.py", "model/test_memory.py", "model/test_partcraft.py", "model/test_unlike_bases.py"),
    *("export/test_round_trip.py", "export/test_folder.py", "export/test_hub.py"),
    *("test_cli.py", "test_hooks.py", "test_odd_inputs.py", "test_project.py", "test_settings.py", "test_stopping.py"),
    *("test_tracking.py", "test_benchmarks_gpu.py"),
)
for name in [name for name in os.environ if name.startswith(("PARTCRAFT_", "MLFLOW_", "KEDRO_"))]:
    del os.environ[name]  # the user's own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if lost := [place for place in SLOW if not (TESTS / place).exists()]:
        raise pytest.UsageError(f"tests/conftest.py calls {lost[0]} slow, which is not there")

    def place_in_order(item: pytest.Item) -> int:
        return next((i for i, place in enumerate(SLOW) if item.path.is_relative_to(TESTS / place)), len(SLOW))

    items.sort(key=place_in_order)
    for item in items:
        if place_in_order(item) < len(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory):
    """Tests work in a project of their own, and not in the user's."""
    folder = tmp_path_factory.mktemp("project")
    lay_out(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's database without a run: it takes seconds to make."""
    from partcraft_kedro.hooks import _make_whole

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    _make_whole(f"sqlite:///{path}")
    return path


@pytest.fixture
def client(tmp_path, empty_database):
    """MLflow, with its records in a folder of this test alone."""
    import mlflow

    shutil.copy(empty_database, tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("curves", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("curves")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def vit_folder(tmp_path):
    """A random DINOv2 of two layers, in Hugging Face layout, with 4×4 patches on a 32×32 picture."""
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        image_size=32, patch_size=8, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3
    )
    folder = tmp_path / "vit"
    Dinov2Model(config).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    BitImageProcessor(size={"shortest_edge": 36}, crop_size=crop, image_mean=[0.4] * 3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def create_tiny():
    """Makes untrained part tokens and LoRA for tiny, three parts with 3, 4 and 4 variants; takes the precision."""
    from partcraft_kedro.model.partcraft import PartCraft

    def create(precision: str = "float32") -> PartCraft:
        learns = {"unet": "lora", "rank": 2, "lora_layers": "cross", "bottleneck_layers": 2}
        return PartCraft.create("tiny", "cpu", precision, variants=[3, 4, 4], **learns, seed=0)

    return create


@pytest.fixture(scope="session")
def carry_parts(tmp_path_factory):
    """Puts into an adapter of `create_tiny` the parts that it carries: names, pictures of one colour in which they are
    shown, and a predictor on a model's features."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from PIL import Image

    from partcraft_kedro.parts.predictor import PartPredictor
    from partcraft_kedro.parts.sheet import PARTS, write_sheet

    place, variants = tmp_path_factory.mktemp("pictures"), [3, 4, 4]
    paths = [place / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (60 * number, 90, 200 - 60 * number)).save(path)
    codes = np.array([[number % 3, number, number - 1] for number in range(4)])  # -1: absent; so no picture shows [2,3]
    cosines = np.where(codes < 0, 0.0, np.linspace(0.5, 0.9, 4)[:, None])
    label_maps = np.tile(np.repeat([0, 1, 2, 0], 4).astype(np.uint8)[:, None], (4, 1, 16))
    centroids = F.normalize(torch.randn(2 + 2 + 11, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    scene, parts, *of_parts = centroids.split([2, 2, *variants])

    def carry(folder: Path, names: list[str], model: str = "tiny") -> None:
        (folder / PARTS).mkdir()
        settings = {"discovery": "plain", "features": {"model": model}, "min_patches": 2}
        PartPredictor(scene, parts, of_parts, **settings).save(folder / PARTS)
        write_sheet(folder / PARTS, names, variants, paths, codes, cosines, label_maps)

    return carry


@pytest.fixture(scope="session")
def small_xl(tmp_path_factory):
    """Stable Diffusion XL's classes, block types, pad tokens and ids of end of text, with few channels and random
    weights: text encoders of 16 and 24, pictures of 32 pixels."""
    import torch
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from partcraft_kedro.model.base import load_base
    from partcraft_kedro.pretraining.tokenizer import build_tokenizer

    summary = 20
    place = tmp_path_factory.mktemp("xl")
    torch.manual_seed(0)
    tokenizers = [build_tokenizer(place / name) for name in ("one", "two")]
    tokenizers[1].pad_token = "!" if "!" in tokenizers[1].get_vocab() else tokenizers[1].unk_token

    def text_config(width):
        ids = {"bos_token_id": tokenizers[0].bos_token_id, "eos_token_id": 2, "pad_token_id": 1}
        size = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
        length = tokenizers[0].model_max_length
        return CLIPTextConfig(
            vocab_size=len(tokenizers[0]), max_position_embeddings=length, projection_dim=summary, **size, **ids
        )

    base = load_base("tiny", "cpu")
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        norm_num_groups=4,
        cross_attention_dim=16 + 24,
        attention_head_dim=2,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=summary + 6 * 8,
    )
    StableDiffusionXLPipeline(
        vae=base.vae,
        text_encoder=CLIPTextModel(text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(24)),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=base.scheduler,
        add_watermarker=False,
    ).save_pretrained(place / "base")
    return place / "base"
