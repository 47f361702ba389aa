"""Evaluation: discovered parts against the true masks, generated pictures against what they should show."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from partcraft_kedro.assets import TINY, model_fingerprint
from partcraft_kedro.evaluation.measures import nest, tabulate
from partcraft_kedro.options import BaseModelOptions, DataOptions, EvaluateOptions, FeaturesOptions
from partcraft_kedro.stages import Stage, fingerprint_of, read_file, write_file, write_json


def score_pictures(
    picture_plan: pd.DataFrame,
    generated_pictures: dict,
    records: pd.DataFrame,
    part_predictor: Path,
    discovery_scores: dict,
    base: BaseModelOptions,
    features: FeaturesOptions,
    evaluate: EvaluateOptions,
    data: DataOptions,
) -> tuple[pd.DataFrame, dict]:
    """Score every generated picture, with ceiling and floor; returns a row for each picture, and under `scores` the
    score table's rows."""
    with Stage(
        data.layer("07_model_output"),
        "scores",
        version=5,
        options=evaluate.model_dump(include={"bootstrap", "seed"}),
        inputs={
            "pictures": generated_pictures["fingerprint"],
            "part_predictor": fingerprint_of(part_predictor),
            "matching": fingerprint_of(discovery_scores["matching"]),
            "judge": fingerprint_of(TINY / "judge"),
            "records": fingerprint_of(records),
            "base": model_fingerprint(base.model, "base", "base.model", data.digests),
            "features": model_fingerprint(features.model, "feature_extractor", "features.model", data.digests),
            **_weights(evaluate, data),
        },
    ) as stage:
        table, summary = stage.folder / "scores.parquet", stage.folder / "summary.json"
        if not stage.finished:
            from partcraft_kedro.drawn.truth import Truth
            from partcraft_kedro.evaluation import distances, metrics, scores
            from partcraft_kedro.evaluation.part_identity import PartIdentity, score_identity
            from partcraft_kedro.model.base import load_base, picture_size
            from partcraft_kedro.parts.predictor import PartPredictor

            pipeline = load_base(base.model, base.device)
            size = picture_size(pipeline)
            predictor = PartPredictor.load(part_predictor, base.device)
            truth = None
            if "world" in records:
                matching = {int(found): true for found, true in discovery_scores["matching"].items()}
                truth = Truth.load(records["world"].iloc[0], TINY / "judge" / "judge.safetensors", matching)
            folder = data.folder / generated_pictures["folder"]
            rows = scores.score_pictures(
                picture_plan,
                records.set_index("id"),
                folder,
                data.folder,
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
                    part_count=predictor.part_count,
                    least_patches=predictor.least_patches,
                    device=base.device,
                )
                known = {"predictor": predictor, "vae": pipeline.vae, "size": size, "seed": evaluate.seed}
                rows = rows.join(score_identity(identity, rows, records.set_index("id"), data.folder, **known))
            result = scores.summarise(rows, evaluate.bootstrap, evaluate.seed)
            reconstructed = rows[rows["kind"] == "reconstruction"]
            embedders = {
                "distance": distances.judge_embedder(truth.judge)
                if truth
                else distances.dinov2_embedder(features.model, base.device)
            }
            if evaluate.inception:
                embedders["fid"] = distances.inception_embedder(evaluate.inception, base.device)
            real = [data.folder / path for path in records["path"]]
            made = [data.folder / path for path in reconstructed["path"]]
            for task, embedder in embedders.items():
                embedded = [distances.embed_pictures(embedder, paths, size) for paths in (real, made)]
                compared = distances.compare(*embedded, features=embedder.name, reference="all real pictures")
                result += [{"task": task, "measure": measure, **of} for measure, of in compared.items()]
            absent = metrics.both_absent(np.stack(rows["code"]), np.stack(rows["found"]))
            write_file(table, rows.to_parquet)
            write_json(summary, {"scores": result, "entries_absent_in_both": absent})
            stage.finish()
    return read_file(table, pd.read_parquet), read_file(summary, lambda path: json.loads(path.read_text()))


def _weights(evaluate: EvaluateOptions, data: DataOptions) -> dict[str, str]:
    """What the stage's key says of the networks that the user names: other weights are another stage."""
    weights = {}
    if evaluate.inception and evaluate.inception.exists():
        weights["inception"] = fingerprint_of(evaluate.inception, data.digests)
    if evaluate.part_identity:
        weights["part_identity"] = model_fingerprint(
            evaluate.part_identity, "feature_extractor", "evaluate.part_identity", data.digests
        )
    return weights


def collect_scores(
    discovery_scores: dict, generation_scores: dict, training_losses: pd.DataFrame
) -> tuple[pd.DataFrame, dict]:
    """Everything that was measured: the score table, and one tree, which also has what is no number."""
    last, generated = training_losses.iloc[-1], generation_scores["scores"]
    attention = {"inside": float(last["attention_inside"]), "loss": float(last["loss_attention"])}
    table = tabulate([*_rows("discovery", discovery_scores), *generated, *_rows("attention", attention)])
    absent = {"entries_absent_in_both": generation_scores["entries_absent_in_both"]}
    return table, {"discovery": discovery_scores, **nest(generated), **absent, "attention": attention}


def _rows(task: str, scores: dict) -> list[dict]:
    values = {name: value for name, value in scores.items() if isinstance(value, float)}
    return [{"task": task, "measure": name, "value": value} for name, value in values.items()]
