"""Pictures on disk to shards of features, beside a plain transformers loop."""

import tempfile
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, Dinov2Model

from measure import Result, side_by_side
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import write_shards
from partcraft_kedro.weights import TINY
from subjects.world import World


def measure(world: World, rounds: int) -> tuple[list[Result], dict]:
    folder = TINY / "feature_extractor"
    processor = AutoImageProcessor.from_pretrained(folder)
    network = Dinov2Model.from_pretrained(folder, dtype=torch.float32)
    extractor = FeatureExtractor("tiny")

    @torch.inference_mode()
    def plain() -> int:
        for start in range(0, len(world.paths), 32):
            pictures = [Image.open(path).convert("RGB") for path in world.paths[start : start + 32]]
            hidden = network(**processor(pictures, return_tensors="pt"), output_hidden_states=True).hidden_states
            hidden[-1][:, 1:].half()
        return len(world.paths)

    def ours() -> int:
        with tempfile.TemporaryDirectory() as shards:
            write_shards(extractor, world.paths, Path(shards), batch_size=32, shard_size=64)
        return len(world.paths)

    ways = {"plain transformers loop": plain, "ours": ours}
    return side_by_side("feature extraction", "picture", ways, rounds=rounds), {}
