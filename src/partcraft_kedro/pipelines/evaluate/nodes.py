"""Evaluation: generated pictures against what they should show."""

import json
from pathlib import Path

import pandas as pd

from partcraft_kedro.files import read_file
from partcraft_kedro.options import BaseModelOptions, EvaluateOptions, FeaturesOptions
from partcraft_kedro.stages import Stage, StageRef, Stages
from partcraft_kedro.weights import TINY

SCORING = Stage("scores", "07_model_output", version=5, work="partcraft_kedro.pipelines.evaluate.work.scoring")


def score_pictures(
    picture_plan: pd.DataFrame,
    generated_pictures: StageRef,
    records: pd.DataFrame,
    part_predictor: Path,
    discovery_scores: dict,
    base: BaseModelOptions,
    features: FeaturesOptions,
    evaluate: EvaluateOptions,
    stages: Stages,
) -> tuple[pd.DataFrame, dict]:
    """Score every generated picture, with ceiling and floor; returns the rows and the summary."""
    scored = stages.run(
        SCORING,
        {
            "plan": picture_plan,
            "pictures": generated_pictures,
            "records": records,
            "part_predictor": part_predictor,
            "matching": discovery_scores["matching"],
            "judge": TINY / "judge",
            "base": base.only("model", "device"),
            "features": features.only("model"),
            "evaluate": evaluate,
        },
        {"root": stages.root},
    )
    summary = read_file(scored.folder / "summary.json", lambda path: json.loads(path.read_text()))
    return scored.table("scores"), summary


def collect_metrics(discovery_scores: dict, generation_scores: dict, training_losses: pd.DataFrame) -> dict:
    """Everything that was measured, in one tree."""
    last = training_losses.iloc[-1]
    attention = {"inside": float(last["attention_inside"]), "loss": float(last["loss_attention"])}
    return {"discovery": discovery_scores, **generation_scores, "attention": attention}
