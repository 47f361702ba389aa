"""The paper's Figs. 5 and 6 and the comparison of methods, each for print (matplotlib) and to explore (plotly).

Both are drawn from one description, a list of panels.
"""

from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from plotly.subplots import make_subplots

from partcraft_kedro.evaluation.measures import MEASURES, names_with
from partcraft_kedro.experiments.summary import interval_of_mean
from partcraft_kedro.figure_style import COLOURS, bare, new_figure
from partcraft_kedro.images.decoding import load_pictures

_COLOURS = [colour for colour in COLOURS if colour != "#f0e442"]  # yellow is lost on white
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "triangle-left")
_CELL = 128  # pixels of a picture in the figure of stages
_MOST_STAGES = 8
_MOST_COMPOSITIONS = 6
_FEWEST_SEEDS = 3  # of an interval: of two it is wider than all that can be
_INK = "#555555"


class _Key(NamedTuple):
    """What an entry of the legend looks like, for matplotlib (linestyle, marker, face) and for plotly (the others)."""

    linestyle: str
    marker: str
    face: str
    mode: str
    symbol: str
    dash: str


_KEYS = {
    "single seeds": _Key("none", ".", _INK, "markers", "circle", "solid"),
    "ceiling": _Key("-", "", "none", "lines", "circle", "solid"),
    "floor": _Key(":", "", "none", "lines", "circle", "dot"),
    "the paper": _Key("none", "o", "none", "markers", "circle-open", "solid"),
}


@dataclass
class _Series:
    """One colour of a panel; arrays are (points,), single: one row a seed with the columns x, values, run_ids."""

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    published: np.ndarray
    single: pd.DataFrame


@dataclass
class _Panel:
    """One pair of axes.

    joined: by lines; band: the interval is a band, without single seeds, which else stand `seed_shift` beside the mean;
    ticks: text by position, empty: numbers; bounds: (name, from x, to x, value).
    """

    title: str
    x_title: str
    series: list[_Series]
    joined: bool
    band: bool = False
    seed_shift: float = 0
    ticks: dict[float, str] = field(default_factory=dict)
    bounds: list[tuple[str, float, float, float]] = field(default_factory=list)
    bounded: bool = True

    @property
    def limits(self) -> tuple[float, float] | None:
        """Of the axis of values, as wide as what is on it, and never beyond 0 and 1; None where it is not bounded."""
        if not self.bounded:
            return None
        parts = [(of.mean, of.low, of.high, of.published, of.single["values"]) for of in self.series]
        values = np.concatenate([*(part for of_one in parts for part in of_one), [value for *_, value in self.bounds]])
        low, high = np.nanmin(values), np.nanmax(values)
        margin = 0.05 * (high - low) + 0.005
        return max(0.0, float(low - margin)), min(1.0, float(high + margin))


def sweep_figure(summary: pd.DataFrame) -> Figure:
    """The scores of one sweep (rows of `summarise_seeds`) with 95% intervals over seeds and every single seed.

    One numeric option: the paper's Fig. 5, curves over it, one for each number of composited parts. Else: the settings
    side by side for each task, between floor and ceiling. The paper's numbers are hollow and dashed.
    """
    return _draw(_panels_of_sweep(summary))


def sweep_plot(summary: pd.DataFrame) -> go.Figure:
    """`sweep_figure` to explore: hover for values and MLflow run ids."""
    return _plot(_panels_of_sweep(summary))


def sweep_plots(summary: pd.DataFrame) -> list[go.Figure]:
    """`sweep_plot` in pieces, one for each measure, for pages of any width."""
    return [_plot([panel]) for panel in _panels_of_sweep(summary)]


def learning_figure(points: pd.DataFrame, samples: pd.DataFrame) -> Figure | None:
    """The pictures sampled while training by every measure of codes, over steps, for each setting of one sweep, mean
    over seeds with 95% interval; none without samples.

    samples: one row a sampled picture, with the columns run_id, step, id, and the measures of codes.
    """
    panels = _panels_of_learning(points, samples)
    return _draw(panels) if panels else None


def learning_plots(points: pd.DataFrame, samples: pd.DataFrame) -> list[go.Figure]:
    """`learning_plot` in pieces, one for each measure, for pages of any width."""
    return [_plot([panel]) for panel in _panels_of_learning(points, samples)]


def learning_plot(points: pd.DataFrame, samples: pd.DataFrame) -> go.Figure | None:
    """`learning_figure` to explore."""
    panels = _panels_of_learning(points, samples)
    return _plot(panels) if panels else None


def stages_figure(points: pd.DataFrame, samples: pd.DataFrame) -> Figure | None:
    """The paper's Fig. 6: the real picture, then what was sampled from its code over the stages of training.

    All settings of one sweep, at most eight steps; one prompt and one noise throughout: the first picture of the lowest
    seed. None without samples. samples: with the columns path, source_path.
    """
    shown = _sampled(points, samples)
    if shown.empty:
        return None
    shown = shown[shown["seed"] == shown["seed"].min()]
    shown = shown[shown["id"] == shown["id"].min()]
    settings = list(dict.fromkeys(shown["setting"]))
    steps = np.unique(shown["step"])
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, _MOST_STAGES).round().astype(int))]
    figure, axes = _table_of_pictures(settings, ["real picture", *(f"step {step:,}" for step in steps)])
    for of_axes, setting in zip(axes, settings, strict=True):
        of_setting = shown[shown["setting"] == setting].set_index("step")
        of_axes[0].imshow(_load(of_setting["source_path"].iloc[0]))
        for axis, step in zip(of_axes[1:], steps, strict=True):
            if step in of_setting.index:
                _show(axis, of_setting.loc[step])
    return figure


def compositions_figure(points: pd.DataFrame, compositions: pd.DataFrame) -> Figure | None:
    """What each setting of one sweep composed of the same parts, from the same noise, of the lowest seed. None if there
    is no prompt that all of them drew.

    compositions: one row a picture, with the columns run_id, id, turn (which come first), prompt, path,
    and the measures of codes.
    """
    shown = points[points["seed"] == points["seed"].min()].merge(compositions, on="run_id")
    settings = list(dict.fromkeys(shown["setting"]))
    drawn_by = shown.groupby(["id", "prompt"], sort=False)["setting"].nunique()
    common = shown.set_index(["id", "prompt"])[(drawn_by == len(settings)).reindex(shown[["id", "prompt"]]).to_numpy()]
    keys = list(dict.fromkeys(common.sort_values("turn", kind="stable").index))[:_MOST_COMPOSITIONS]
    if not keys:
        return None
    figure, axes = _table_of_pictures(settings, [prompt for _, prompt in keys])
    for of_axes, setting in zip(axes, settings, strict=True):
        of_setting = common[common["setting"] == setting]
        for axis, key in zip(of_axes, keys, strict=True):
            _show(axis, of_setting.loc[[key]].iloc[0])
    return figure


def _table_of_pictures(settings: list[str], titles: list[str]) -> tuple[Figure, np.ndarray]:
    """A figure to show pictures in, and its axes by setting and title. What there is more of goes across, since figures
    are wider than high."""
    figure = new_figure(layout="constrained")
    is_turned = len(settings) > len(titles)
    rows, columns = (titles, settings) if is_turned else (settings, titles)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    bare(axes)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(_for_print(_wrap(title, 20)), fontsize=8)
    for axis, title in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(_for_print(_wrap(title, 20)), fontsize=8, rotation=0, ha="right", va="center", labelpad=8)
    return figure, axes.T if is_turned else axes


def _show(axis: Axes, picture: pd.Series) -> None:
    """picture: with the columns path and the measures of codes."""
    axis.imshow(_load(picture["path"]))
    names = names_with(of_codes=True, headline=True)
    axis.set_xlabel("\n".join(MEASURES[name].caption(picture) for name in names), fontsize=8)


def _sampled(points: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Samples with the settings of their runs; none where settings share a training, which tells nothing of them."""
    shown = points.merge(samples, on="run_id")
    return shown if shown.groupby("path")["run_id"].nunique().le(1).all() else shown.iloc[:0]


def _load(path: str | Path) -> np.ndarray:
    return load_pictures([Path(path)], _CELL)[0]


def _wrap(text: str, width: int) -> str:
    return fill(text, width, break_long_words=False)


def _for_print(text: str) -> str:
    """A user's text for matplotlib, to which `$` begins a formula."""
    return text.replace("$", r"\$")


def _for_plotly(text: str) -> str:
    """A user's text for plotly, which takes HTML."""
    return escape(text, quote=False).replace("\n", "<br>")


def _panels_of_sweep(summary: pd.DataFrame) -> list[_Panel]:
    """A panel for each measure of single pictures: a series for each task over a number, else one for each setting."""
    # All compositions together are for tables: a curve for each number of sources shows them better.
    drawn = summary["measure"].isin(names_with(per_picture=True, compared=True)) & (summary["task"] != "composition")
    shown = summary[drawn & summary["mean"].notna()]
    option, tasks = shown["option"].iloc[0], shown["task"].unique()
    numbers = _positions(shown["setting"].unique())
    if numbers:
        label, along, places = "task", "setting", numbers
        # Just enough for intervals not to lie on each other.
        width = 0.25 * min((after - before for before, after in pairwise(numbers.values())), default=1)
    else:
        label, along, places = "setting", "task", {task: i for i, task in enumerate(tasks)}
        width = 0.7
    labels = list(shown[label].unique())
    panels = []
    for measure in shown["measure"].unique():
        rows = shown[shown["measure"] == measure]
        series = []
        for i, name in enumerate(labels):
            shift = width * (i - (len(labels) - 1) / 2) / len(labels)
            of = rows[rows[label] == name]
            if of.empty:  # a measure that one setting lacks
                continue
            series.append(_series(name, of.assign(x=of[along].map(places) + shift).sort_values("x")))
        panel = _Panel(
            MEASURES[measure].title, f"{option} (log scale)" if numbers else "", series, joined=bool(numbers)
        )
        panel.bounded = MEASURES[measure].bounded
        panel.seed_shift = 0.3 * width / len(labels)
        panel.ticks = {x: _wrap(name, 12) for name, x in places.items()}
        if not numbers:
            for bound in ("ceiling", "floor"):
                means = rows.groupby("task")[bound].mean().dropna()
                panel.bounds += [(bound, places[task] - 0.42, places[task] + 0.42, y) for task, y in means.items()]
        panels.append(panel)
    return panels


def _positions(settings: np.ndarray) -> dict[str, float] | None:
    """Where numbers stand on a logarithmic axis, from the left, zero a step before the smallest; none for words."""
    try:
        numbers = [float(setting) for setting in settings]
    except ValueError:
        return None
    if min(numbers) < 0 or max(numbers) == 0:
        return None
    logs = np.log10(sorted(number for number in set(numbers) if number > 0))
    zero = logs[0] - (logs[1] - logs[0] if len(logs) > 1 else 1)
    places = [float(np.log10(number)) if number else float(zero) for number in numbers]
    return dict(sorted(zip(settings, places, strict=True), key=lambda item: item[1]))


def _series(label: str, rows: pd.DataFrame) -> _Series:
    few = rows["values"].map(len) < _FEWEST_SEEDS
    rows = rows.assign(low=rows["low"].mask(few), high=rows["high"].mask(few))
    numbers = {name: rows[name].to_numpy(float) for name in ("x", "mean", "low", "high", "published")}
    single = rows[["x", "values", "run_ids"]].explode(["values", "run_ids"]).astype({"values": float})
    return _Series(label, **numbers, single=single)


def _panels_of_learning(points: pd.DataFrame, samples: pd.DataFrame) -> list[_Panel]:
    """A panel for each measure of codes, a series for each setting."""
    shown = _sampled(points, samples)
    keys, measures = ["setting", "run_id", "step"], names_with(of_codes=True)
    trainings = shown.groupby(keys, sort=False)[measures].mean().reset_index()
    panels = []
    for measure in measures if len(trainings) else ():
        series = []
        for setting, of_setting in trainings.dropna(subset=measure).groupby("setting", sort=False):
            rows = []
            for step, of_step in of_setting.groupby("step"):
                values = of_step[measure]
                low, high = interval_of_mean(values.to_numpy())
                row = {"x": step, "mean": values.mean(), "low": low, "high": high, "published": np.nan}
                rows.append(row | {"values": values.tolist(), "run_ids": of_step["run_id"].tolist()})
            series.append(_series(setting, pd.DataFrame(rows)))
        title = f"{MEASURES[measure].title} of sampled pictures"
        bounded = MEASURES[measure].bounded
        panels.append(_Panel(title, "training step", series, joined=True, band=True, bounded=bounded))
    return panels


def _styles(panels: list[_Panel]) -> dict[str, int]:
    """The number of each label's colour and marker, the same in every panel."""
    labels = dict.fromkeys(series.label for panel in panels for series in panel.series)
    return {label: i % len(_COLOURS) for i, label in enumerate(labels)}


def _grid(panels: list[_Panel]) -> tuple[int, int]:
    """Rows and columns of panels: two abreast, but settings side by side take the whole width where there is room."""
    columns = 2 if len(panels) > (1 if panels[0].joined else 2) else 1
    return -(-len(panels) // columns), columns


def _draw(panels: list[_Panel]) -> Figure:
    styles, (rows, columns) = _styles(panels), _grid(panels)
    figure = new_figure(layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        for series in panel.series:
            colour, marker = _COLOURS[styles[series.label]], _MARKERS[styles[series.label]]
            x, mean = series.x, series.mean
            if panel.band:
                axis.fill_between(x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)
            else:
                errors = np.stack([mean - series.low, series.high - mean])
                axis.errorbar(x, mean, errors, color=colour, fmt="none", capsize=3, linewidth=1.2)
                dots = series.single["x"] + panel.seed_shift
                axis.plot(dots, series.single["values"], ".", color=colour, markersize=4, alpha=0.7)
            axis.plot(x, mean, marker, linestyle="-" if panel.joined else "none", color=colour, markersize=6)
            known = ~np.isnan(series.published)
            if known.any():
                hollow = {"linestyle": "--" if panel.joined else "none", "color": colour, "markerfacecolor": "none"}
                axis.plot(x[known], series.published[known], marker, markersize=9, linewidth=1, **hollow)
        for name, start, end, value in panel.bounds:
            axis.plot([start, end], [value, value], color=_INK, linestyle=_KEYS[name].linestyle, linewidth=1.2)
        axis.set(title=panel.title, xlabel=panel.x_title)
        if panel.limits:
            axis.set_ylim(panel.limits)
        if panel.ticks:
            axis.set_xticks(list(panel.ticks), map(_for_print, panel.ticks.values()), fontsize=8)
        axis.grid(alpha=0.3, axis="y")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles = []
    for label, style in styles.items():
        text = _for_print(_wrap(label, 40))
        handles.append(Line2D([], [], color=_COLOURS[style], marker=_MARKERS[style], linestyle="none", label=text))
    for name, key in _keys(panels).items():
        marks: dict[str, Any] = {"linestyle": key.linestyle, "marker": key.marker, "markerfacecolor": key.face}
        handles.append(Line2D([], [], color=_INK, label=name, **marks))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=8, frameon=False)
    return figure


def _plot(panels: list[_Panel]) -> go.Figure:
    styles, (rows, columns) = _styles(panels), _grid(panels)
    specs: list[list[dict | None]] = [
        [{} if r * columns + c < len(panels) else None for c in range(columns)] for r in range(rows)
    ]
    titles = [panel.title for panel in panels]
    height = 330 * rows + 120
    spacing = {"horizontal_spacing": 0.08, "vertical_spacing": 90 / (height - 190) if rows > 1 else 0}
    figure = make_subplots(rows, columns, specs=specs, subplot_titles=titles, **spacing)
    for i, panel in enumerate(panels):
        place = {"row": 1 + i // columns, "col": 1 + i % columns, "showlegend": False}
        for series in panel.series:
            _add_series(figure, place, panel, series, styles[series.label])
        for name, start, end, value in panel.bounds:
            line = {"line_color": _INK, "line_dash": _KEYS[name].dash, "line_width": 1.5, "legendgroup": name}
            hover = {"hovertemplate": f"{name}: %{{y:.3f}}<extra></extra>"}
            figure.add_scatter(x=[start, end], y=[value, value], mode="lines", **line, **hover, **place)
        if panel.limits:
            figure.update_yaxes(range=panel.limits, row=place["row"], col=place["col"])
        figure.update_xaxes(title_text=panel.x_title, autotickangles=[0, 90], row=place["row"], col=place["col"])
        if panel.ticks:
            texts = list(map(_for_plotly, panel.ticks.values()))
            figure.update_xaxes(tickvals=list(panel.ticks), ticktext=texts, row=place["row"], col=place["col"])
    # The legend is of marks that stand nowhere, so that an entry looks the same whatever the panels hold.
    nowhere = {"x": [None], "y": [None], "showlegend": True}
    for label, style in styles.items():
        marks = {"mode": "markers", "marker_color": _COLOURS[style], "marker_symbol": _PLOTLY_MARKERS[style]}
        figure.add_scatter(name=_for_plotly(_wrap(label, 40)), legendgroup=label, **marks, **nowhere)
    for name, key in _keys(panels).items():
        marks = {"mode": key.mode, "marker_color": _INK, "marker_symbol": key.symbol, "line_dash": key.dash}
        figure.add_scatter(name=name, legendgroup=name, **marks, **nowhere)
    figure.update_layout(
        template="simple_white",
        height=height,
        margin={"l": 50, "r": 20, "t": 70, "b": 120},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
    )
    figure.update_yaxes(showgrid=True)
    return figure


def _add_series(figure: go.Figure, place: dict, panel: _Panel, series: _Series, style: int) -> None:
    """Interval and single seeds, then the means, then the paper's numbers. place: row, col and showlegend."""
    drawn = place | {"legendgroup": series.label, "marker_color": _COLOURS[style]}
    mode, symbol = "lines+markers" if panel.joined else "markers", _PLOTLY_MARKERS[style]
    if panel.band:
        errors = None
        known = ~np.isnan(series.low)
        there_and_back = np.concatenate([series.x[known], series.x[known][::-1]])
        edge = np.concatenate([series.high[known], series.low[known][::-1]])
        band = {"fill": "toself", "fillcolor": _COLOURS[style], "opacity": 0.15, "line_width": 0}
        figure.add_scatter(x=there_and_back, y=edge, mode="lines", hoverinfo="skip", **band, **drawn)
    else:
        errors = {"array": series.high - series.mean, "arrayminus": series.mean - series.low}
        dots = {"x": series.single["x"] + panel.seed_shift, "y": series.single["values"], "mode": "markers"}
        hover = {"hovertemplate": "%{y:.3f}<br>run %{customdata}<extra></extra>"}
        of_seeds = drawn | hover | {"legendgroup": "single seeds", "marker_size": 4, "opacity": 0.7}
        figure.add_scatter(**dots, customdata=series.single["run_ids"], **of_seeds)
    marks = {"marker_symbol": symbol, "marker_size": 8, "error_y": errors}
    told = {"text": _hover_texts(series), "hoverinfo": "text"}
    figure.add_scatter(x=series.x, y=series.mean, mode=mode, **marks, **told, **drawn)
    known = ~np.isnan(series.published)
    if known.any():
        marks = {"marker_symbol": f"{symbol}-open", "marker_size": 11, "line_dash": "dash", "line_width": 1}
        hover = {"hovertemplate": f"the paper, {_for_plotly(series.label)}: %{{y:.3f}}<extra></extra>"}
        of_paper = drawn | marks | hover | {"legendgroup": "the paper"}
        figure.add_scatter(x=series.x[known], y=series.published[known], mode=mode, **of_paper)


def _hover_texts(series: _Series) -> list[str]:
    texts = []
    for mean, low, high in zip(series.mean, series.low, series.high, strict=True):
        interval = "" if np.isnan(low) else f"<br>95% interval {low:.3f} to {high:.3f}"
        texts.append(f"{_for_plotly(series.label)}: {mean:.3f}{interval}")
    return texts


def _keys(panels: list[_Panel]) -> dict[str, _Key]:
    """The entries of the legend that are no series."""
    there = {name for panel in panels for name, *_ in panel.bounds}
    if not all(panel.band for panel in panels):
        there.add("single seeds")
    if any(not np.isnan(series.published).all() for panel in panels for series in panel.series):
        there.add("the paper")
    return {name: key for name, key in _KEYS.items() if name in there}
