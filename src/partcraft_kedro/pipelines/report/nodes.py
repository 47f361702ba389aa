"""Pictures and tables of a run."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.evaluation import figures
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.options import EvaluateOptions
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import Stages

_SIZE = 128  # pixels of a picture in a figure


def _load(paths: Iterable[str], stages: Stages) -> np.ndarray:
    return load_pictures([stages.root / path for path in paths], _SIZE)


def _examples(rows: pd.DataFrame, evaluate: EvaluateOptions, purpose: str) -> pd.DataFrame:
    chosen = numpy_generator(evaluate.seed, purpose).permutation(len(rows))[: evaluate.examples]
    return rows.iloc[sorted(chosen)]


def draw_reconstructions(
    scores: pd.DataFrame, records: pd.DataFrame, evaluate: EvaluateOptions, stages: Stages
) -> Figure:
    """Random originals above what was generated from their codes."""
    shown = _examples(scores[scores["kind"] == "reconstruction"], evaluate, "reconstructions")
    paths = records.set_index("id")["path"]
    real = _load([paths[sources[0]] for sources in shown["sources"]], stages)
    return figures.reconstructions_figure(real, _load(shown["path"], stages), shown)


def draw_compositions(
    scores: pd.DataFrame,
    records: pd.DataFrame,
    part_names: dict[int, str],
    discovery_scores: dict,
    evaluate: EvaluateOptions,
    stages: Stages,
) -> Figure:
    """Random compositions, as many of each number of sources, beside their sources (the paper's Figs. 2 and 3) and, of
    drawings, beside what was asked for."""
    composed = scores[(scores["kind"] == "composition") & (scores["source_count"] > 1)]
    order = numpy_generator(evaluate.seed, "compositions").permutation(len(composed))
    drawn = composed.iloc[order]
    turn = drawn.groupby("source_count").cumcount()  # the first of each number, then the second of each
    shown = drawn.loc[turn.sort_values(kind="stable").index[: evaluate.examples]].sort_values("source_count")
    paths = records.set_index("id")["path"]
    sources = [list(_load([paths[i] for i in ids], stages)) for ids in shown["sources"]]
    swapped = [[part_names[part] for part in parts] for parts in shown["swapped"]]
    asked = None
    if "world" in records:
        world, known = WORLDS[records["world"].iloc[0]], records.set_index("id")
        matching = {int(found): true for found, true in discovery_scores["matching"].items()}
        asked = [world.draw(*world.intended(row, known, matching)).picture for _, row in shown.iterrows()]
    return figures.compositions_figure(sources, swapped, asked, _load(shown["path"], stages), shown)


def draw_transfers(scores: pd.DataFrame, records: pd.DataFrame, evaluate: EvaluateOptions, stages: Stages) -> Figure:
    """Pairs of pictures, and the first with parts of the second (the paper's Fig. 4)."""
    transfers = scores[scores["kind"] == "transfer"]
    paths = records.set_index("id")["path"]
    # A pair's pictures follow each other, once for each set of parts.
    sets = list(dict.fromkeys(transfers["transferred"]))
    shown = transfers.head(evaluate.examples * len(sets))
    pairs = [(row.sources[0], row.sources[-1]) for row in shown.iloc[:: max(len(sets), 1)].itertuples()]
    sources = [_load([paths[i] for i in pair], stages) for pair in pairs]
    made = _load(shown["path"], stages)
    return figures.transfers_figure(sources, made.reshape(len(pairs), len(sets), *made.shape[1:]), sets)


def draw_losses(training_losses: pd.DataFrame) -> Figure:
    """The training curves."""
    return figures.losses_figure(training_losses)


def draw_scores(score_table: pd.DataFrame) -> Figure:
    """The scores between floor and ceiling."""
    return figures.scores_figure(score_table[score_table["low"].notna()])
