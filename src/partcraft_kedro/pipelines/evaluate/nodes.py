"""Evaluation: generated pictures against what they should show."""

import json
from pathlib import Path

import pandas as pd

from partcraft_kedro.compute import Engine
from partcraft_kedro.evaluation.measures import PART, nest, tabulate
from partcraft_kedro.files import read_file
from partcraft_kedro.options import BaseModelOptions, ComputeOptions, EvaluateOptions, FeaturesOptions
from partcraft_kedro.stages import Stage, StageRef, Stages
from partcraft_kedro.weights import TINY

SCORING = Stage("scores", "07_model_output", version=8, work="partcraft_kedro.pipelines.evaluate.work.scoring")


def score_pictures(
    picture_plan: pd.DataFrame,
    generated_pictures: StageRef,
    records: pd.DataFrame,
    part_predictor: Path,
    part_masks: Path,
    discovery_scores: dict,
    base: BaseModelOptions,
    features: FeaturesOptions,
    evaluate: EvaluateOptions,
    compute: ComputeOptions,
    stages: Stages,
) -> tuple[pd.DataFrame, dict]:
    """Score every generated picture, with ceiling and floor; returns a row for each picture, and under `scores` the
    score table's rows."""
    seen = {
        "plan": picture_plan,
        "pictures": generated_pictures,
        "records": records,
        "part_predictor": part_predictor,
        "part_masks": part_masks,
        "matching": discovery_scores["matching"],
        "judge": TINY / "judge",
        "base": base.only("model", "config", "size", "device"),
        "features": features.only("model"),
        "evaluate": evaluate,
    }
    with Engine(compute, base.device, stages.root) as engine:
        scored = stages.run(SCORING, seen, {"engine": engine})
    summary = read_file(scored.folder / "summary.json", lambda path: json.loads(path.read_text()))
    return scored.table("scores"), summary


def collect_scores(
    discovery_scores: dict, generation_scores: dict, training_losses: pd.DataFrame, part_names: dict[int, str]
) -> tuple[pd.DataFrame, dict]:
    """Everything that was measured: the score table, and one tree, which also has what is no number."""
    last = training_losses.iloc[-1]
    tasks = {f"{PART}{part}": f"{PART}{name.removeprefix(PART)}" for part, name in part_names.items()}
    of_parts = [row | {"task": tasks[row["task"]]} for row in generation_scores["parts"]]
    generated = [*generation_scores["scores"], *of_parts]
    attention = {"inside": float(last["attention_inside"]), "loss": float(last["loss_attention"])}
    table = tabulate([*_rows("discovery", discovery_scores), *generated, *_rows("attention", attention)])
    absent = {"entries_absent_in_both": generation_scores["entries_absent_in_both"]}
    return table, {"discovery": discovery_scores, **nest(generated), **absent, "attention": attention}


def _rows(task: str, scores: dict) -> list[dict]:
    values = {name: value for name, value in scores.items() if isinstance(value, float)}
    return [{"task": task, "measure": name, "value": value} for name, value in values.items()]
