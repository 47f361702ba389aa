"""Pictures and tables of a run."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.evaluation import figures
from partcraft_kedro.images.records import load_pictures
from partcraft_kedro.options import DataOptions, EvaluateOptions
from partcraft_kedro.randomness import numpy_generator

_SIZE = 128  # pixels of a picture in a figure


def _names(discovery_scores: dict, count: int) -> list[str]:
    matching = discovery_scores["matching"]
    return [f"{m} {matching.get(str(m), '?')}" for m in range(count)]


def _load(paths: Iterable[str], data: DataOptions) -> np.ndarray:
    return load_pictures([data.folder / path for path in paths], _SIZE)


def _examples(rows: pd.DataFrame, evaluate: EvaluateOptions, purpose: str) -> pd.DataFrame:
    chosen = numpy_generator(evaluate.seed, purpose).permutation(len(rows))[: evaluate.examples]
    return rows.iloc[sorted(chosen)]


def draw_part_maps(
    records: pd.DataFrame,
    codes: pd.DataFrame,
    part_masks: Path,
    discovery_scores: dict,
    evaluate: EvaluateOptions,
    data: DataOptions,
) -> Figure:
    """Random pictures with their part maps and codes (the paper's Fig. 1)."""
    from safetensors.numpy import load_file

    shown = _examples(records, evaluate, "part maps")
    label_maps = load_file(part_masks / "masks.safetensors")["label_maps"][shown.index]
    chosen = np.stack(codes.set_index("id").loc[shown["id"], "code"])
    return figures.draw_part_maps(
        _load(shown["path"], data), label_maps, chosen, _names(discovery_scores, chosen.shape[1])
    )


def draw_reconstructions(
    scores: pd.DataFrame, records: pd.DataFrame, evaluate: EvaluateOptions, data: DataOptions
) -> Figure:
    """Random originals above what was generated from their codes."""
    shown = _examples(scores[scores["kind"] == "reconstruction"], evaluate, "reconstructions")
    paths = records.set_index("id")["path"]
    real = _load([paths[sources[0]] for sources in shown["sources"]], data)
    return figures.draw_reconstructions(real, _load(shown["path"], data), shown)


def draw_compositions(
    scores: pd.DataFrame,
    records: pd.DataFrame,
    discovery_scores: dict,
    evaluate: EvaluateOptions,
    data: DataOptions,
) -> Figure:
    """Random compositions beside their sources (the paper's Figs. 2 and 3)."""
    composed = scores[scores["source_count"] > 1]
    shown = _examples(composed, evaluate, "compositions").sort_values("source_count")
    paths = records.set_index("id")["path"]
    sources = [list(_load([paths[i] for i in ids], data)) for ids in shown["sources"]]
    names = _names(discovery_scores, len(scores["code"].iloc[0]))
    swapped = [[names[part] for part in parts] for parts in shown["swapped"]]
    return figures.draw_compositions(sources, swapped, _load(shown["path"], data), shown)


def draw_losses(training_losses: pd.DataFrame) -> Figure:
    """The training curves."""
    return figures.draw_losses(training_losses)


def tabulate_scores(metrics: dict) -> pd.DataFrame:
    """One row for each task and measure: value, 95% interval, ceiling, floor, number of pictures."""
    rows = []
    for measure, value in metrics["discovery"].items():
        if isinstance(value, float):
            rows.append({"task": "discovery", "measure": measure, "value": value})
    tasks = {"reconstruction": metrics["reconstruction"]}
    tasks |= {f"composition of {n}": of for n, of in metrics["composition"].items()}
    for task, measures in tasks.items():
        rows += [{"task": task, "measure": measure, **scores} for measure, scores in measures.items()]
    for measure, scores in metrics["distance"].items():
        rows.append({"task": "distance", "measure": measure, "value": scores["value"], "n": scores["n"]})
    for measure, value in metrics["attention"].items():
        rows.append({"task": "attention", "measure": measure, "value": value})
    columns = ["task", "measure", "value", "low", "high", "ceiling", "floor", "n"]
    return pd.DataFrame(rows, columns=columns).astype({name: float for name in columns[2:]})


def draw_scores(score_table: pd.DataFrame) -> Figure:
    """The scores between floor and ceiling."""
    return figures.draw_scores(score_table[score_table["low"].notna()])
