"""What the stages of parts compute."""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from partcraft_kedro.features.shards import FeatureShards
from partcraft_kedro.files import write_file, write_folder
from partcraft_kedro.options import PartsOptions
from partcraft_kedro.parts.discovery import fit_part_predictor
from partcraft_kedro.parts.label_maps import save_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.stages import StageRef


def discovery(place: StageRef, *, features: StageRef, records: pd.DataFrame, parts: PartsOptions) -> None:
    """Fits the three tiers on the training pictures; writes `part_predictor/`."""
    shards = FeatureShards(features.folder, (records["split"] == "train").to_numpy())
    options = parts.model_dump(exclude={"names"})
    predictor = fit_part_predictor(shards, extractor=features.summary["extractor"], **options)
    write_folder(place.folder / "part_predictor", predictor.save)


def labelling(place: StageRef, *, part_predictor: Path, features: StageRef, records: pd.DataFrame) -> None:
    """Writes `part_masks/masks.safetensors`, and `codes.parquet` with the codes' cosines to the variants' centroids."""
    predictor = PartPredictor.load(part_predictor)
    label_maps: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    cosines: list[np.ndarray] = []
    for chunk in tqdm(FeatureShards(features.folder), desc="label pictures", unit="shard"):
        label_maps.append(predictor.label_maps(chunk))
        for found, of_chunk in zip((codes, cosines), predictor.codes_of(chunk, label_maps[-1]), strict=True):
            found.extend(of_chunk)
    save_label_maps(np.concatenate(label_maps), place.folder / "part_masks")
    table = pd.DataFrame({"id": records["id"], "code": codes, "cosine": cosines})
    write_file(place.folder / "codes.parquet", table.to_parquet)
