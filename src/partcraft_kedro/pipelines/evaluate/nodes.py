"""Evaluation: discovered parts against the true masks, generated pictures against what they should show."""

from pathlib import Path

import pandas as pd

from partcraft_kedro.assets import TINY
from partcraft_kedro.options import BaseModelOptions, DataOptions, EvaluateOptions
from partcraft_kedro.stages import Stage, fingerprint_of, write_file, write_json


def score_discovery(records: pd.DataFrame, part_masks: Path, data: DataOptions) -> dict:
    """NMI, ARI and IoU against the true masks, and which true label each discovered part stands for."""
    import numpy as np
    from PIL import Image
    from safetensors.numpy import load_file

    from partcraft_kedro.evaluation import discovery
    from partcraft_kedro.images.creatures import LABELS

    true = np.stack([np.asarray(Image.open(data.folder / path)) for path in records["mask_path"]])
    found = load_file(part_masks / "masks.safetensors")["label_maps"]
    patches = discovery.patch_labels(true, found.shape[1])
    overlaps = discovery.overlap(found, patches, int(found.max()) + 1, len(LABELS))
    scores = discovery.discovery_scores(overlaps, found, true)
    matching = discovery.match_labels(overlaps)
    scores["iou_of_labels"] = dict(zip(LABELS, scores["iou_of_labels"], strict=True))
    return scores | {"matching": {str(found): LABELS[true] for found, true in matching.items()}}


def score_pictures(
    picture_plan: pd.DataFrame,
    generated_pictures: dict,
    records: pd.DataFrame,
    part_predictor: Path,
    discovery_scores: dict,
    base: BaseModelOptions,
    evaluate: EvaluateOptions,
    data: DataOptions,
) -> tuple[pd.DataFrame, dict]:
    """Score every generated picture, with ceiling and floor; returns the rows and the summary."""
    stage = Stage(
        data.layer("07_model_output"),
        "scores",
        version=2,
        options=evaluate.model_dump(exclude={"examples"}),
        inputs={
            "pictures": generated_pictures["fingerprint"],
            "part_predictor": fingerprint_of(part_predictor),
            "matching": fingerprint_of(discovery_scores["matching"]),
            "judge": fingerprint_of(TINY / "judge"),
        },
    )
    table, summary = stage.folder / "scores.parquet", stage.folder / "summary.json"
    if not stage.finished:
        import numpy as np

        from partcraft_kedro.evaluation import metrics, scores
        from partcraft_kedro.evaluation.judge import Judge
        from partcraft_kedro.images.creatures import LABELS
        from partcraft_kedro.images.records import load_pictures
        from partcraft_kedro.model.base import load_base, picture_size
        from partcraft_kedro.parts.predictor import PartPredictor

        pipeline = load_base(base.model, base.device)
        size = picture_size(pipeline)
        judge = Judge.load(TINY / "judge" / "judge.safetensors")
        folder = data.folder / generated_pictures["folder"]
        rows = scores.score_pictures(
            picture_plan,
            records.set_index("id"),
            folder,
            data.folder,
            predictor=PartPredictor.load(part_predictor),
            vae=pipeline.vae,
            size=size,
            seed=evaluate.seed,
            judge=judge,
            matching={int(found): LABELS.index(true) for found, true in discovery_scores["matching"].items()},
        )
        result = scores.summarise(rows, evaluate.bootstrap, evaluate.seed)
        reconstructed = rows[rows["kind"] == "reconstruction"]
        real = load_pictures([data.folder / path for path in records["path"]], size)
        made = load_pictures([data.folder / path for path in reconstructed["path"]], size)
        result["distance"] = scores.distances(judge, real, made)
        codes, found = np.stack(rows["code"]), np.stack(rows["found"])
        result["entries_absent_in_both"] = metrics.both_absent(codes, found)
        write_file(table, rows.to_parquet)
        write_json(summary, result)
        stage.finish()
    import json

    return pd.read_parquet(table), json.loads(summary.read_text())


def collect_metrics(discovery_scores: dict, generation_scores: dict, training_losses: pd.DataFrame) -> dict:
    """Everything that was measured, in one tree."""
    last = training_losses.iloc[-1]
    attention = {"inside": float(last["attention_inside"]), "loss": float(last["loss_attention"])}
    return {"discovery": discovery_scores, **generation_scores, "attention": attention}
