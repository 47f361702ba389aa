"""Sweeps summed up over seeds: means with intervals, differences from a reference, tables for people.

Every table starts from two: `points`, one row a finished grid point, with the columns sweep, setting, option, seed,
method, attention_weight (λ_attn), steps, run_id, adapter_version; and `scores`, one row a number, with the columns
run_id, task, measure, value, ceiling, floor, n, note.
"""

from itertools import product

import numpy as np
import pandas as pd

from partcraft_kedro.evaluation.measures import MEASURES, PART, names_with, title_of
from partcraft_kedro.experiments.published import PAPER_WEIGHT, published_value

# Options whose values the paper reports numbers for.
_PAPER_VARIES = {"train.method", "train.attention_weight"}


def column_titles() -> dict[tuple[str, str], str]:
    """The columns of tables for people in their order, by task and measure."""
    of_pictures, of_sets = (names_with(compared=True, per_picture=per_picture) for per_picture in (True, False))
    keys = [
        *product(["reconstruction"], of_pictures),
        *product(["fid", "distance"], of_sets),
        *product(["composition"], of_pictures),
        *((f"composition of {count}", name) for name in of_pictures for count in range(1, 5)),
    ]
    return {key: title_of(*key) for key in keys}


def interval_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Student's 95% interval of the mean of independent values (n,); NaN for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    from scipy import stats  # takes long to import

    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def with_all_compositions(scores: pd.DataFrame) -> pd.DataFrame:
    """scores with the task `composition` added: the mean over all compositions of a run, whatever their sources."""
    composed = scores[scores["task"].str.match(r"composition of \d+$")]
    rows = []
    for (run_id, measure), group in composed.groupby(["run_id", "measure"], sort=False):
        weights = group["n"] / group["n"].sum()
        means = {name: (group[name] * weights).sum(skipna=False) for name in ("value", "ceiling", "floor")}
        rows.append({"run_id": run_id, "task": "composition", "measure": measure, "n": group["n"].sum(), **means})
    return pd.concat([scores, pd.DataFrame(rows, columns=scores.columns)], ignore_index=True) if rows else scores


def summarise_seeds(points: pd.DataFrame, scores: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """One row for each sweep, setting, task and measure, in the grid's order.

    Columns: sweep, option, setting, method, attention_weight, task, measure; mean over the seeds that have a value,
    with Student's 95% interval low and high; seeds, how many they are; n, the fewest pictures of one; ceiling, floor:
    means; published, the paper's number (NaN: none), and its source, a letter of SOURCES; run_ids and values, one for
    each seed; note, the first there is.
    """
    keys = ["sweep", "option", "setting", "method", "attention_weight", "task", "measure"]
    columns = [*keys, "mean", "low", "high", "seeds", "n", "ceiling", "floor", "published", "source"]
    columns += ["run_ids", "values", "note"]
    rows = []
    for key, group in points.merge(scores, on="run_id").groupby(keys, sort=False):
        of = dict(zip(keys, key, strict=True))
        measured = group.dropna(subset="value")
        low, high = interval_of_mean(measured["value"].to_numpy())
        paper = published_value(dataset, *key[3:]) if _papers_own(of["option"]) else None
        notes = group["note"].dropna()
        rows.append(
            of
            | {
                "mean": measured["value"].mean(),
                "low": low,
                "high": high,
                "seeds": len(measured),
                "n": group["n"].min(),
                "ceiling": group["ceiling"].mean(),
                "floor": group["floor"].mean(),
                "published": paper.value if paper else float("nan"),
                "source": paper.source if paper else None,
                "run_ids": measured["run_id"].tolist(),
                "values": measured["value"].tolist(),
                "note": notes.iloc[0] if len(notes) else None,
            }
        )
    return pd.DataFrame(rows, columns=columns)


def reference_of(points: pd.DataFrame) -> str:
    """What others are compared with: the paper's choice, PartCraft or else a rival at λ_attn .01, or the first."""
    paper = points[points["attention_weight"] == PAPER_WEIGHT]
    return pd.concat([paper[paper["method"] == "partcraft"], paper, points])["setting"].iloc[0]


def compare_with(points: pd.DataFrame, scores: pd.DataFrame, reference_setting: str) -> pd.DataFrame:
    """Each setting of one sweep against a reference, paired over equal seeds; points: of that sweep.

    Columns: setting, task, measure, the mean difference (setting − reference) with Student's 95% interval low and
    high, seeds: pairs of them, excludes_zero: whether the interval does.
    """
    if reference_setting not in set(points["setting"]):
        raise ValueError(f"{reference_setting!r} is none of the settings {sorted(set(points['setting']))}")
    values = points.merge(scores, on="run_id")[["setting", "seed", "task", "measure", "value"]]
    is_reference = values["setting"] == reference_setting
    pairing = ["seed", "task", "measure"]
    reference = values[is_reference].drop(columns="setting")
    pairs = values[~is_reference].merge(reference, on=pairing, suffixes=("", "_reference"), validate="many_to_one")
    pairs["difference"] = pairs["value"] - pairs["value_reference"]
    rows = []
    for key, group in pairs.dropna(subset="difference").groupby(["setting", "task", "measure"], sort=False):
        low, high = interval_of_mean(group["difference"].to_numpy())
        rows.append((*key, group["difference"].mean(), low, high, len(group), low > 0 or high < 0))
    columns = ["setting", "task", "measure", "difference", "low", "high", "seeds", "excludes_zero"]
    return pd.DataFrame(rows, columns=columns)


_ANSWERED = (("reconstruction", "emr"), ("composition", "emr"))  # the task and measure of what sentences tell
_TABULATED = (*_ANSWERED, ("reconstruction", "judge"))  # and of what the first table has


def answers(summary: pd.DataFrame, comparison: pd.DataFrame, reference: str) -> list[str]:
    """What a sweep found, in a sentence for each setting. summary, comparison: rows of one sweep."""
    sentences = []
    for setting in summary["setting"].unique():
        of = comparison[comparison["setting"] == setting].set_index(["task", "measure"])
        told = [_ahead(of.loc[key], reference, title_of(*key)) for key in _ANSWERED if key in of.index]
        if told:
            sentences.append(f"{setting} is {'; '.join(told)}.")
    return sentences or [f"{_reached(summary)}."]


def _ahead(difference: pd.Series, reference: str, title: str) -> str:
    """ahead of 0.01 in reconstruction EMR, by 0.050, beyond the interval"""
    value = difference["difference"]
    if round(value, 3) == 0:
        return f"level with {reference} in {title}"
    if difference["seeds"] < 3:
        certainty = "on fewer than three seeds, too few for an interval"
    else:
        certainty = "beyond the interval" if difference["excludes_zero"] else "within the interval"
    return f"{'ahead of' if value > 0 else 'behind'} {reference} in {title}, by {abs(value):.3f}, {certainty}"


def _reached(summary: pd.DataFrame) -> str:
    """partcraft reached a reconstruction EMR of 0.916 ± 0.005"""
    table = table_of_answers(summary)
    told = [f"a {name} of {table[name].iloc[0]}" for name in table.columns[2:] if not name.endswith(", paper")]
    return f"{table['setting'].iloc[0]} reached {', '.join(told)}"


def table_of_answers(summary: pd.DataFrame) -> pd.DataFrame:
    """`table_of_sweep` in its few most important columns, the setting a column too."""
    kept = [column for key in _TABULATED for column in (title_of(*key), f"{title_of(*key)}, paper")]
    table = table_of_sweep(summary)
    return table[["seeds", *(column for column in kept if column in table)]].reset_index()


def table_of_sweep(summary: pd.DataFrame) -> pd.DataFrame:
    """One sweep for people: a row a setting, a column a measure, `mean ± half the interval's width`.

    Where the paper reports any of a column's numbers, they are in a column beside it, each with the letter of its
    source. summary: rows of one sweep.
    """
    table = pd.DataFrame({"seeds": summary.groupby("setting", sort=False)["seeds"].max()})
    for (task, measure), name in column_titles().items():
        rows = summary[(summary["task"] == task) & (summary["measure"] == measure)].set_index("setting")
        if rows["mean"].notna().any():
            table[name] = _show(rows["mean"], rows["low"].mask(rows["seeds"] < 3), seeds=rows["values"])
        if rows["published"].notna().any():
            table[f"{name}, paper"] = _show(rows["published"]) + " [" + rows["source"] + "]"
    return table.fillna("–")


def table_of_headlines(summary: pd.DataFrame) -> pd.DataFrame:
    """`table_of_sweep` for where there is little room: the headline measures alone, the setting a column too."""
    kept = [
        title
        for (task, name), title in column_titles().items()
        if MEASURES[name].headline and not task.startswith("composition of")
    ]
    table = table_of_sweep(summary)
    return table.loc[:, table.columns.isin(["seeds", *kept])].reset_index()


def table_of_differences(comparison: pd.DataFrame) -> pd.DataFrame:
    """The result of `compare_with` for people: a row a setting, a column a measure, `difference ± half the interval's
    width`, with a star where the interval excludes zero."""
    table = pd.DataFrame(index=pd.Index(comparison["setting"].unique(), name="setting"))
    for (task, measure), name in column_titles().items():
        rows = comparison[(comparison["task"] == task) & (comparison["measure"] == measure)].set_index("setting")
        if len(rows):
            stars = rows["excludes_zero"].map({True: " *", False: ""})
            table[name] = _show(rows["difference"], rows["low"], sign="+") + stars
    return table.fillna("–")


def table_of_points(points: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Where every number is from: a row a grid point with its MLflow run and adapter, a column each of its values, but
    for those of single parts, of which there are too many for a table."""
    table = points[["setting", "seed", "method", "steps", "run_id", "adapter_version"]].copy()
    of_all_parts = scores[~scores["task"].str.startswith(PART)]
    for (task, measure), rows in of_all_parts.groupby(["task", "measure"], sort=False):
        values = points["run_id"].map(rows.set_index("run_id")["value"])
        if values.notna().any():
            table[title_of(task, measure)] = values
    return table


def _papers_own(option: str) -> bool:
    """Whether a grid over these options varies nothing but what the paper varies."""
    return set(option.split(", ")) <= _PAPER_VARIES


def _show(means: pd.Series, lows: pd.Series | None = None, sign: str = "", seeds: pd.Series | None = None) -> pd.Series:
    """Text of means and, where there is one, half the width of their interval, or else the values of two seeds; None
    where there is no mean."""

    def show(mean: float, low: float, values: list[float]) -> str | None:
        if np.isnan(mean):
            return None
        digits = 3 if abs(mean) < 10 else 2
        single = f" ({', '.join(f'{value:.{digits}f}' for value in values)})" if len(values) == 2 else ""
        return f"{mean:{sign}.{digits}f}" + (single if np.isnan(low) else f" ± {mean - low:.{digits}f}")

    lows = means * np.nan if lows is None else lows
    values = [[]] * len(means) if seeds is None else seeds
    texts = [show(*of_setting) for of_setting in zip(means, lows, values, strict=True)]
    return pd.Series(texts, index=means.index, dtype=object)
