"""What the subjects share: drawn creatures with their parts, and fresh models."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import FeatureShards, write_shards
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.model.base import load_base
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.parts.discovery import fit_part_predictor
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.training.cache import TrainingCache, write_latents

SIZE, PARTS, VARIANTS, BATCH = 128, 5, 16, 8
TRAINING = TrainOptions(
    method="partcraft", steps=1, batch_size=BATCH, micro_batch=None, gradient_checkpointing=False, compile=False,
    learning_rate=6e-3, weight_decay=0.01, rank=4, lora_layers="cross", template_probability=0.0, snr_gamma=None,
    max_gradient_norm=1.0, warmup_steps=0, average=None, token_start="random", stratified_timesteps=False,
    lora_learning_rate_factor=1.0,
    checkpoint_every=1000, log_every=10, sample_every=1000, seed=0,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Creatures, their parts, and where they lie."""

    folder: Path
    paths: list[Path]
    predictor: PartPredictor
    cache: TrainingCache


@contextmanager
def make_world() -> Iterator[World]:
    """Ten species, twelve pictures each, with features, parts, codes and latents, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = draw_dataset(
            "creatures", folder / "raw", folder, classes=10, pictures_per_class=12, test_fraction=0.2, seed=0
        )
        paths = [folder / path for path in records["path"]]
        extractor = FeatureExtractor("tiny")
        write_shards(extractor, paths, folder / "features", batch_size=32, shard_size=64)
        predictor = fit_part_predictor(
            FeatureShards(folder / "features"), discovery="plain", parts=PARTS, variants=VARIANTS, n_init=2,
            max_iter=30, merge=False, min_patches=2, min_pictures=1, seed=0, extractor={"model": "tiny"},
        )  # fmt: skip
        pictures = load_pictures(paths, SIZE)
        label_maps, codes, _ = predictor.segment(pictures)
        write_latents(load_base("tiny").vae, paths, SIZE, folder / "latents")
        cache = TrainingCache.load(folder / "latents", label_maps, list(codes))
        # The published step finds the parts of the flipped picture; so that all see the same masks, so does this one.
        flipped = torch.from_numpy(predictor.segment(np.ascontiguousarray(pictures[:, :, ::-1]))[0])
        cache = TrainingCache(cache.mean, cache.std, torch.stack([cache.label_maps[0], flipped]), cache.codes)
        yield World(folder, paths, predictor, cache)


def fresh_model(precision: str, *, parts: int = PARTS) -> PartCraft:
    """Tiny with untrained part tokens and LoRA."""
    return PartCraft.create(
        "tiny", "cpu", precision, variants=[VARIANTS] * (parts + 1), unet="lora", rank=4, lora_layers="cross",
        bottleneck_layers=2, seed=0,
    )  # fmt: skip
