"""Part discovery on the training pictures, then masks and codes of all pictures."""

from pathlib import Path

import pandas as pd

from partcraft_kedro.options import DataOptions, PartsOptions
from partcraft_kedro.stages import Stage, fingerprint_of, write_file, write_folder


def discover_parts(features: dict, records: pd.DataFrame, parts: PartsOptions, data: DataOptions) -> Path:
    """Fit the three tiers of centroids; returns the part predictor's folder."""
    stage = Stage(
        data.layer("05_model_input"),
        "discovery",
        version=1,
        options=parts.model_dump(),
        inputs={"features": features["fingerprint"]},
    )
    folder = stage.folder / "part_predictor"
    if not stage.finished:
        from partcraft_kedro.features.shards import FeatureShards
        from partcraft_kedro.parts import discovery

        training = (records["split"] == "train").to_numpy()
        shards = FeatureShards(data.folder / features["folder"], training)
        predictor = discovery.discover_parts(shards, feature_model=features["model"], **parts.model_dump())
        write_folder(folder, predictor.save)
        stage.finish()
    return folder


def label_pictures(
    part_predictor: Path, features: dict, records: pd.DataFrame, data: DataOptions
) -> tuple[Path, pd.DataFrame]:
    """Label maps of all pictures, as a folder with one safetensors file, and their codes by record id."""
    stage = Stage(
        data.layer("05_model_input"),
        "labels",
        version=1,
        options={},
        inputs={"features": features["fingerprint"], "part_predictor": fingerprint_of(part_predictor)},
    )
    folder, table = stage.folder / "part_masks", stage.folder / "codes.parquet"
    if not stage.finished:
        import numpy as np
        from safetensors.numpy import save_file

        from partcraft_kedro.features.shards import FeatureShards
        from partcraft_kedro.parts.predictor import PartPredictor

        predictor = PartPredictor.load(part_predictor)
        label_maps, codes = [], []
        for chunk in FeatureShards(data.folder / features["folder"]):
            label_maps.append(predictor.label_maps(chunk))
            codes.append(predictor.codes_of(chunk, label_maps[-1]))
        maps = np.concatenate(label_maps)
        write_folder(folder, lambda partial: save_file({"label_maps": maps}, partial / "masks.safetensors"))
        by_id = pd.DataFrame({"id": records["id"], "code": list(np.concatenate(codes))})
        write_file(table, by_id.to_parquet)
        stage.finish()
    return folder, pd.read_parquet(table)
