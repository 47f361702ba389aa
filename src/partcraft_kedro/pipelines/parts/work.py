"""What the stages of parts compute."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from partcraft_kedro.compute import Engine, Work
from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.features import crops
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import FeatureShards
from partcraft_kedro.files import write_file, write_folder
from partcraft_kedro.images import readers
from partcraft_kedro.options import PartsOptions
from partcraft_kedro.parts import agreement, keypoints
from partcraft_kedro.parts.discovery import fit_part_predictor
from partcraft_kedro.parts.label_maps import load_label_maps, save_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import StageRef

_FITTED = 65_536  # pictures at most: of each its parts' mean features are kept, 18 kB with M=5 and 768 numbers
_CROPPED = 256  # pictures at most: 65,000 patches on 16×16, however large the dataset
_CROP_SHARD = 16  # of them a file


def cropping(place: StageRef, *, features: StageRef, records: pd.DataFrame, seed: int, engine: Engine) -> None:
    """Writes what random crops of some training pictures change of their features."""
    chosen = some_training(records, _CROPPED, seed, "cropped pictures")
    options = {"shard_size": _CROP_SHARD, "seed": seed}
    open_work = partial(
        _open_cropping, features.summary["extractor"], options, engine.device, engine.root, place.folder
    )
    engine.map(open_work, records["path"].iloc[chosen], _CROP_SHARD, "compare crops")


def _open_cropping(given: dict[str, Any], options: dict[str, int], device: str, root: Path, folder: Path) -> Work:
    extractor = FeatureExtractor(**given, device=device)

    def work(paths: pd.Series, first: int) -> None:
        crops.write_changes(extractor, [root / path for path in paths], folder, **options, first=first)

    return work


def discovery(
    place: StageRef,
    *,
    features: StageRef,
    records: pd.DataFrame,
    parts: PartsOptions,
    crop_changes: StageRef | None = None,
) -> None:
    """Fits the three tiers on the training pictures; writes `part_predictor/`.

    crop_changes: of `cropping`, for the recipe `whitened`.
    """
    fitted = np.isin(np.arange(len(records)), some_training(records, _FITTED, parts.seed, "fitted pictures"))
    shards = FeatureShards(features.folder, fitted)
    options = parts.model_dump(exclude={"names"})
    changes = crops.read_changes(crop_changes.folder) if crop_changes else None
    predictor = fit_part_predictor(shards, changes=changes, extractor=features.summary["extractor"], **options)
    write_folder(place.folder / "part_predictor", predictor.save)


def some_training(records: pd.DataFrame, most: int, seed: int, purpose: str) -> np.ndarray:
    """The rows of so many training pictures at most, drawn at random, in their order."""
    training = np.flatnonzero(records["split"] == "train")
    return np.sort(numpy_generator(seed, purpose).permutation(training)[:most])


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


def scoring(place: StageRef, *, records: pd.DataFrame, part_masks: Path, codes: pd.DataFrame, root: Path) -> dict:
    """How good the parts are, against true masks, or keypoints, boxes and classes; `matching` says what each is."""
    found = load_label_maps(part_masks)
    if "world" in records:
        return _score_against_masks(records, found, root)
    return _score_photographs(records, found, codes)


def _score_against_masks(records: pd.DataFrame, found: np.ndarray, root: Path) -> dict:
    """NMI, ARI and IoU, and which true label each discovered part stands for."""
    labels = WORLDS[records["world"].iloc[0]].labels
    true = np.stack([np.asarray(Image.open(root / path)) for path in records["mask_path"]])
    patches = agreement.patch_labels(true, found.shape[1])
    overlaps = agreement.overlap(found, patches, int(found.max()) + 1, len(labels))
    scores = agreement.discovery_scores(overlaps, found, true)
    matching = agreement.match_labels(overlaps)
    scores["iou_of_labels"] = dict(zip(labels, scores["iou_of_labels"], strict=True))
    return scores | {"matching": {str(found): labels[true] for found, true in matching.items()}}


def _score_photographs(records: pd.DataFrame, found: np.ndarray, codes: pd.DataFrame) -> dict:
    """NMI, ARI and regression error at the keypoints of the test split, foreground IoU with the boxes, and what codes
    tell of classes: whatever the records allow. `matching` names parts after their keypoints."""
    scores: dict = {"matching": {}, "foreground_share": float((found > 0).mean())}
    if "keypoints" in records:
        labelled = keypoints.labels_at_keypoints(records, found)
        tested = (records["split"] == "test").to_numpy()[labelled["picture"]]
        if tested.any():
            scores |= keypoints.keypoint_agreement(labelled[tested])
            scores["keypoint_error"] = keypoints.keypoint_regression_error(records, found, labelled, int(found.max()))
        named = keypoints.names_by_keypoints(labelled, readers.CUB_PARTS)
        scores["matching"] = {str(label): name for label, name in named.items()}
    boxed = records["box"].notna() if "box" in records else pd.Series(False, records.index)
    if boxed.any():
        scores["foreground_iou"] = keypoints.foreground_iou(records[boxed], found[boxed.to_numpy()])
    if records["class_name"].nunique() > 1:
        by_id = codes.set_index("id").loc[records["id"], "code"]
        scores |= keypoints.codes_and_classes(np.stack(by_id), records["class_name"].to_numpy())
    return scores
