"""One HTML page of all sweeps: it needs no network, and leads from every number to its MLflow run."""

import base64
from collections.abc import Mapping
from io import BytesIO
from math import isnan
from numbers import Integral
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as PlotlyFigure
from plotly.offline import get_plotlyjs

from partcraft_kedro.evaluation.measures import names_with, title_of
from partcraft_kedro.experiments import plots, summary
from partcraft_kedro.experiments.published import PAPER_OPTIONS, PAPER_OPTIONS_OF, SOURCES
from partcraft_kedro.templates import load_template


def render_page(
    dataset: str,
    points: pd.DataFrame,
    scores: pd.DataFrame,
    samples: pd.DataFrame,
    compositions: pd.DataFrame,
    options: Mapping[str, Mapping[str, object]],
    runs_address: str | None = None,
) -> str:
    """The page as text. points, scores: as in `summary`; samples, compositions: as in `plots`, may be empty.

    options: for each sweep what all of its runs share, by dotted name; runs_address: where MLflow shows a run whose id
    is put behind it.
    """
    pictures = samples, compositions
    sections = [
        _section(dataset, of_sweep, scores, pictures, options[name])
        for name, of_sweep in points.groupby("sweep", sort=False)
    ]
    page = load_template(Path(__file__).with_name("page.html.j2"))
    return page.render(dataset=dataset, sections=sections, plotly=Markup(get_plotlyjs()), runs_address=runs_address)


def differences(dataset: str, options: Mapping[str, object]) -> list[str]:
    """What differs from the paper's set-up, in sentences. options: by dotted name."""
    sentences = []
    paper = PAPER_OPTIONS | PAPER_OPTIONS_OF.get(dataset, {})
    if dataset not in PAPER_OPTIONS_OF:
        sentences.append(
            "The paper reports no numbers for these pictures, so none stand beside ours: compare settings with each "
            "other, not with the paper."
        )
    if dataset == "creatures":
        sentences.append("The pictures are our own drawn creatures, not photographs.")
    if options.get("base.model") == "tiny":
        sentences.append("The base is tiny, a small Stable Diffusion that has seen nothing but drawn creatures.")
    if options.get("features.model") == "tiny":
        sentences.append("Parts are found and scored with tiny's own small vision transformer, not with DINOv2.")
    if dataset not in PAPER_OPTIONS_OF and "train.steps" in options:
        sentences.append(
            f"Training is short, {_text(options['train.steps'])} steps; the paper trains for 100 epochs, "
            f"{_text(PAPER_OPTIONS_OF['cub']['train.steps'])} steps on CUB."
        )
    for name, value in paper.items():
        ours = options.get(name)
        # None: as the method has it; tiny: said above.
        if ours not in (None, "tiny", value):
            sentences.append(f"{name} is {_text(ours)}, the paper's {_text(value)}.")
    return sentences


def _section(
    dataset: str,
    points: pd.DataFrame,
    scores: pd.DataFrame,
    pictures: tuple[pd.DataFrame, pd.DataFrame],
    options: Mapping[str, object],
) -> dict:
    """What the template shows of one sweep. pictures: samples and compositions."""
    samples, compositions = pictures
    seeds = summary.summarise_seeds(points, scores, dataset)
    reference = summary.reference_of(points)
    comparison = summary.compare_with(points, scores, reference)
    pictured = seeds[seeds["measure"].isin(names_with(per_picture=True, compared=True))]
    stages, composed = plots.stages_figure(points, samples), plots.compositions_figure(points, compositions)
    return {
        "name": points["sweep"].iloc[0],
        "varied": points["option"].iloc[0],
        "settings": list(points["setting"].unique()),
        "seeds": sorted(points["seed"].unique()),
        "trainings": points["run_id"].nunique(),
        "steps": [_text(steps) for steps in sorted(points["steps"].unique())],
        "pictures": pictured.groupby("task", sort=False)["n"].min().astype(int).to_dict(),
        "held": {name: _text(value) for name, value in options.items()},
        "differences": differences(dataset, options),
        "answers": summary.answers(seeds, comparison, reference),
        "headlines": summary.table_of_answers(seeds),
        "table": summary.table_of_sweep(seeds).reset_index(),
        "sources": {letter: SOURCES[letter] for letter in sorted(seeds["source"].dropna().unique())},
        "notes": _columns_by_note(seeds),
        "reference": reference,
        "comparison": summary.table_of_differences(comparison).reset_index(),
        "scores": [_inline(plot) for plot in plots.sweep_plots(seeds)],
        "learning": [_inline(plot) for plot in plots.learning_plots(points, samples)],
        "composed": _inline_png(composed) if composed else None,
        "stages": _inline_png(stages) if stages else None,
        "points": summary.table_of_points(points, scores).map(_cell),
    }


def _columns_by_note(seeds: pd.DataFrame) -> dict[str, str]:
    """For each note, which columns of the tables it is about."""
    noted = seeds.dropna(subset="note")
    names = [title_of(*key) for key in zip(noted["task"], noted["measure"], strict=True)]
    return {note: ", ".join(of.unique()) for note, of in pd.Series(names).groupby(noted["note"].array, sort=False)}


def _text(value: object) -> str:
    """A value for people: 299,700, 1e-05, yes, none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, Integral) else str(value)


def _cell(value: object) -> str:
    """A cell of the table of grid points."""
    if isinstance(value, float):
        return "–" if isnan(value) else f"{value:.4f}"
    return str(value)


def _inline(figure: PlotlyFigure) -> Markup:
    """A figure that finds plotly.js on the page."""
    config = {"responsive": True, "displaylogo": False}
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config=config))


def _inline_png(figure: Figure) -> str:
    """A figure as a data URL."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
