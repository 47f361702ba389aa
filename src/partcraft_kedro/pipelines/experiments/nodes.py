"""What sweeps found: the paper's tables and figures."""

import re

import pandas as pd
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as PlotlyFigure

from partcraft_kedro import tracking
from partcraft_kedro.evaluation.measures import SCORE_COLUMNS, names_with
from partcraft_kedro.experiments import page, plots, summary
from partcraft_kedro.figure_style import figure_of_words
from partcraft_kedro.stages import Stages
from partcraft_kedro.sweeps.book import Book

SWEEPS = ("attention_weight", "methods", "break_a_scene")
"""The sweeps of the paper, each with a figure of its own."""
_POINT = [
    *("sweep", "point", "setting", "option", "seed", "method", "attention_weight", "steps"),
    *("run_id", "adapter_version"),
]
_NO_SWEEP = "The sweep {0} has not been run: kedro sweep {0}"
_SCORE = ["run_id", *SCORE_COLUMNS]
_COMPOSITION = ["run_id", "id", "turn", "prompt", *names_with(of_codes=True), "path"]
_SAMPLE = ["run_id", "step", "id", *names_with(of_codes=True), "path", "source_path"]


def collect_points(stages: Stages) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict]:
    """Every finished point of the dataset's sweeps or, within a sweep's own folder, of that one.

    Returns the points in their grids' order, their scores, the pictures sampled while they were trained, what they
    composed, each with the MLflow run's id, and for each sweep the options that its points share. Of sweeps of one
    name, each has its fingerprint in its name.
    """
    reporting, models = (stages.root / layer for layer in ("08_reporting", "06_models"))
    books = Book.all_below(reporting / f"{stages.dataset}{stages.point}")
    names = [book.name for book in books]
    points, scores, samples, composed, options = [], [], [], [], {}
    for book in books:
        name = book.name if names.count(book.name) == 1 else book.folder.name
        options[name] = book.shared_options
        for place, facts in book.points_done():
            of_run = {"run_id": facts["run_id"]}
            points.append(facts | {"sweep": name})
            scores.append(pd.read_parquet(place / "score_table.parquet").assign(**of_run))
            sampled = pd.read_parquet(models / place.relative_to(reporting) / "training_samples.parquet")
            samples.append(sampled.assign(**of_run))
            composed.append(_compositions(pd.read_parquet(place / "scores.parquet")).assign(**of_run))
    return (
        pd.DataFrame(points, columns=_POINT),
        summary.with_all_compositions(pd.concat([pd.DataFrame(columns=_SCORE), *scores])[_SCORE]),
        pd.concat([pd.DataFrame(columns=_SAMPLE), *samples])[_SAMPLE],
        pd.concat([pd.DataFrame(columns=_COMPOSITION), *composed])[_COMPOSITION],
        options,
    )


def _compositions(scores: pd.DataFrame) -> pd.DataFrame:
    """Those of several pictures, with their turn: the first of each number of sources, then the second of each."""
    several = scores[(scores["kind"] == "composition") & (scores["source_count"] > 1)]
    return several.assign(turn=several.groupby("source_count").cumcount())


def summarise_sweeps(sweep_points: pd.DataFrame, sweep_scores: pd.DataFrame, stages: Stages) -> pd.DataFrame:
    """Means over seeds with intervals, beside the paper's numbers where it has any."""
    return summary.summarise_seeds(sweep_points, sweep_scores, stages.dataset)


def draw_sweep(name: str, sweep_summary: pd.DataFrame) -> tuple[Figure, PlotlyFigure]:
    """The scores of the last sweep of a name."""
    rows = _of_sweep(name, sweep_summary)
    if rows.empty:
        return _words(_NO_SWEEP.format(name))
    return plots.sweep_figure(rows), plots.sweep_plot(rows)


def draw_own_sweep(sweep_summary: pd.DataFrame) -> tuple[Figure, PlotlyFigure]:
    """The scores of the last sweep that is none of the paper's."""
    own = sweep_summary[~sweep_summary["sweep"].str.match(rf"({'|'.join(SWEEPS)})(-[0-9a-f]{{16}})?$")]
    if own.empty:
        return _words("No grid of your own has been run: kedro sweep --grid <option>=<value>,<value>")
    return draw_sweep(own["sweep"].iloc[-1], own)


def draw_learning(
    sweep_points: pd.DataFrame, sweep_samples: pd.DataFrame, stages: Stages
) -> tuple[Figure, Figure, PlotlyFigure]:
    """The paper's Fig. 6, of the last sweep of methods or else the last of all: pictures and curves over the stages of
    training."""
    points = _of_sweep("methods", sweep_points)
    if points.empty and len(sweep_points):
        points = sweep_points[sweep_points["sweep"] == sweep_points["sweep"].iloc[-1]]
    if points.empty:
        words, plot_of_words = _words(_NO_SWEEP.format("methods"))
        return words, words, plot_of_words
    samples = _with_paths(sweep_samples, stages)
    words, plot_of_words = _words("There are no pictures of these trainings to compare.")
    return (
        plots.stages_figure(points, samples) or words,
        plots.learning_figure(points, samples) or words,
        plots.learning_plot(points, samples) or plot_of_words,
    )


def write_page(
    sweep_points: pd.DataFrame,
    sweep_scores: pd.DataFrame,
    sweep_samples: pd.DataFrame,
    sweep_compositions: pd.DataFrame,
    sweep_options: dict,
    stages: Stages,
) -> str:
    """All sweeps on one HTML page."""
    samples = _with_paths(sweep_samples, stages)
    composed = sweep_compositions.assign(path=[stages.root / path for path in sweep_compositions["path"]])
    return page.render_page(
        stages.dataset, sweep_points, sweep_scores, samples, composed, sweep_options, tracking.address_of_runs()
    )


def _of_sweep(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last sweep of a name."""
    of_name = table[(table["sweep"] == name) | table["sweep"].str.match(rf"{re.escape(name)}-[0-9a-f]{{16}}$")]
    return of_name[of_name["sweep"] == of_name["sweep"].iloc[-1]] if len(of_name) else of_name


def _with_paths(samples: pd.DataFrame, stages: Stages) -> pd.DataFrame:
    return samples.assign(**{name: [stages.root / path for path in samples[name]] for name in ("path", "source_path")})


def _words(text: str) -> tuple[Figure, PlotlyFigure]:
    return figure_of_words(text), PlotlyFigure(layout={"title": text})
