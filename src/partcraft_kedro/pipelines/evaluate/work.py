"""What the stage of evaluation computes."""

from pathlib import Path

import numpy as np
import pandas as pd

from partcraft_kedro.drawn.truth import Truth
from partcraft_kedro.evaluation import distances, metrics, scores
from partcraft_kedro.evaluation.part_identity import PartIdentity, score_identity
from partcraft_kedro.evaluation.swaps import Swaps
from partcraft_kedro.files import write_file, write_json
from partcraft_kedro.model.base import load_base, picture_size
from partcraft_kedro.options import BaseModelOptions, EvaluateOptions, FeaturesOptions
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.stages import StageRef


def scoring(
    place: StageRef,
    *,
    plan: pd.DataFrame,
    pictures: StageRef,
    records: pd.DataFrame,
    part_predictor: Path,
    part_masks: Path,
    matching: dict[str, str],
    judge: Path,
    base: BaseModelOptions,
    features: FeaturesOptions,
    evaluate: EvaluateOptions,
    root: Path,
) -> None:
    """Writes `scores.parquet`, a row for each picture, and `summary.json`: the score table's rows, of pictures and of
    parts, leakage by the part that was swapped, and how many entries EMR leaves out."""
    pipeline = load_base(base.model, base.device, base.size, base.config)
    size = picture_size(pipeline)
    predictor = PartPredictor.load(part_predictor, base.device)
    truth = None
    if "world" in records:
        parts = {int(found): true for found, true in matching.items()}
        truth = Truth.load(records["world"].iloc[0], judge / "judge.safetensors", parts)
    scored = scores.score_plan(
        plan,
        records.set_index("id"),
        load_label_maps(part_masks),
        pictures.folder,
        root,
        predictor=predictor,
        vae=pipeline.vae,
        size=size,
        seed=evaluate.seed,
        truth=truth,
    )
    if evaluate.part_identity:
        identity = PartIdentity(
            evaluate.part_identity,
            clustered=features.model,
            min_patches=predictor.min_patches,
            part_count=predictor.part_count,
            device=base.device,
        )
        known = {"predictor": predictor, "vae": pipeline.vae, "size": size, "seed": evaluate.seed}
        alike = score_identity(identity, scored.table, records.set_index("id"), root, **known)
        scored = scored.join(scored.table[[]], alike)
    rows = scored.table
    result = scores.summarise(rows, evaluate.bootstrap, evaluate.seed)
    of_parts = scores.summarise_parts(scored, evaluate.bootstrap, evaluate.seed)
    leakage, counts = Swaps.of_plan(plan, predictor.part_count + 1).leakage_by_swap(scored.of_parts["leakage"])
    reconstructed = rows[rows["kind"] == "reconstruction"]
    embedders = {
        "distance": distances.judge_embedder(truth.judge)
        if truth
        else distances.dinov2_embedder(features.model, base.device)
    }
    if evaluate.inception:
        embedders["fid"] = distances.inception_embedder(evaluate.inception, base.device)
    real, made = ([root / path for path in table["path"]] for table in (records, reconstructed))
    for task, embedder in embedders.items():
        embedded = [distances.embed_pictures(embedder, paths, size) for paths in (real, made)]
        compared = distances.compare(*embedded, features=embedder.name, reference="all real pictures")
        result += [{"task": task, "measure": measure, **of} for measure, of in compared.items()]
    absent = metrics.both_absent(np.stack(rows["code"]), np.stack(rows["found"]))
    write_file(place.folder / "scores.parquet", rows.to_parquet)
    shares = leakage.astype(object)
    shares[counts == 0] = None  # JSON has no NaN
    by_swap = {"share": shares.tolist(), "pictures": counts.tolist()}
    summary = {"scores": result, "parts": of_parts, "leakage_by_swap": by_swap, "entries_absent_in_both": absent}
    write_json(place.folder / "summary.json", summary)
