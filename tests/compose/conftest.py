"""Twelve drawings, a part predictor on tiny's features, and an adapter that nobody trained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from partcraft_kedro.compose.palette import DatasetPalette
from partcraft_kedro.compose.studio import Studio
from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.options import BaseModelOptions, SamplingOptions
from partcraft_kedro.parts.predictor import PartPredictor

NAMES = ["background", "upper", "lower"]
VARIANTS = [3, 4, 4]  # as `create_tiny` has them
SAMPLING = SamplingOptions(steps=2, guidance_scale=2.0, guidance_rescale=0.5)


@pytest.fixture(scope="session")
def palette(tmp_path_factory: pytest.TempPathFactory) -> DatasetPalette:
    """Twelve creatures; parts and variants are whatever random centroids find in them."""
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    world, rng = WORLDS["creatures"], np.random.default_rng(0)
    ids = [f"{number:03d}" for number in range(12)]
    for id in ids:
        subject = world.random_subject(rng)
        Image.fromarray(world.draw(subject, world.random_pose(rng)).picture).save(root / f"{id}.png")
    paths = [f"{id}.png" for id in ids]
    pictures = load_pictures([root / path for path in paths], 128)
    features = FeatureExtractor("tiny", device="cpu")(pictures)
    points = F.normalize(features.flatten(0, 1), dim=-1)
    chosen = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    variants = list(chosen[10:21].split(VARIANTS))
    predictor = PartPredictor(
        chosen[:2], chosen[2:4], variants, discovery="plain", features={"model": "tiny"}, min_patches=2, device="cpu"
    )
    label_maps = predictor.label_maps(features)
    codes, cosines = predictor.codes_of(features, label_maps)
    records = pd.DataFrame({"id": ids, "path": paths, "class_name": [f"kind {row % 3}" for row in range(12)]})
    table = pd.DataFrame({"id": ids, "code": list(codes), "cosine": list(cosines)}).sample(frac=1, random_state=0)
    return DatasetPalette(records, table, label_maps, predictor, NAMES, root)


@pytest.fixture(scope="session")
def adapter(create_tiny: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "2026-01-01" / "adapter"
    create_tiny().save_adapter(folder, {})
    return folder


@pytest.fixture(scope="session")
def studio(palette: DatasetPalette, adapter: Path) -> Studio:
    base = BaseModelOptions(device="cpu", precision="float32")
    return Studio(palette, palette._predictor, base, SAMPLING, adapter, {"2026-01-01": adapter})
