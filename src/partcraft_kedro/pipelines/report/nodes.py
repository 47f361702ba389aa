"""Pictures and tables of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.evaluation import figures, swap_figures
from partcraft_kedro.evaluation.measures import MEASURES, names_with
from partcraft_kedro.evaluation.regions import load_looked
from partcraft_kedro.evaluation.swaps import Swaps
from partcraft_kedro.figure_style import part_colours
from partcraft_kedro.generation.plan import looked_path
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.options import EvaluateOptions
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import Stages

_SIZE = 256  # pixels of a picture in a figure


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
    part_masks: Path,
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
    album = _Album(records, load_label_maps(part_masks), part_names, stages)
    asked = _draw_asked(shown, records, discovery_scores)
    made = _load(shown["path"], stages)
    return figures.compositions_figure(
        [
            figures.Composition(album.sources(row["sources"], row["swapped"]), drawing, picture, row)
            for row, drawing, picture in zip(shown.to_dict("records"), asked, made, strict=True)
        ]
    )


def _draw_asked(shown: pd.DataFrame, records: pd.DataFrame, discovery_scores: dict) -> list[np.ndarray | None]:
    """Drawings of what compositions should show; None of photographs, of which nobody knows."""
    if "world" not in records:
        return [None] * len(shown)
    world, known = WORLDS[records["world"].iloc[0]], records.set_index("id")
    matching = {int(found): true for found, true in discovery_scores["matching"].items()}
    return [world.draw(*world.intended(row, known, matching)).picture for _, row in shown.iterrows()]


@dataclass(frozen=True)
class _Album:
    """Pictures of the dataset with their parts. label_maps: (n, grid, grid), in the records' order."""

    records: pd.DataFrame
    label_maps: np.ndarray
    part_names: dict[int, str]
    stages: Stages

    def source(self, id: str, label: str, parts: Iterable[int] = ()) -> figures.Source:
        """A picture that lends parts."""
        row = int(np.flatnonzero(self.records["id"] == id)[0])
        [picture] = _load([self.records["path"].iloc[row]], self.stages)
        colours = part_colours(len(self.part_names))
        return figures.Source(picture, label, [(colours[part], self.label_maps[row] == part) for part in parts])

    def sources(self, ids: Sequence[str], swapped: Sequence[int]) -> list[figures.Source]:
        """The base, then those that lend a part each."""
        lenders = zip(ids[1:], swapped, strict=True)
        return [self.source(ids[0], "base"), *(self.source(i, f"+ {self.part_names[m]}", [m]) for i, m in lenders)]


def draw_transfers(
    scores: pd.DataFrame,
    records: pd.DataFrame,
    part_masks: Path,
    part_names: dict[int, str],
    evaluate: EvaluateOptions,
    stages: Stages,
) -> Figure:
    """Pairs of pictures, the first as it is, and with parts of the second (the paper's Fig. 4)."""
    transfers = scores[scores["kind"] == "transfer"]
    # A pair's pictures follow each other, once for each set of parts.
    sets = list(dict.fromkeys(transfers["transferred"]))
    count = min(evaluate.examples, figures.MOST_TRANSFERS)
    shown = transfers.head(count * len(sets))
    lent = sorted({part for parts in shown["swapped"] for part in parts})
    album = _Album(records, load_label_maps(part_masks), part_names, stages)
    pairs = [
        (album.source(row.sources[0], "A"), album.source(row.sources[-1], "B", lent))
        for row in shown.iloc[max(len(sets) - 1, 0) :: max(len(sets), 1)].itertuples()  # with all parts
    ]
    made = _load(shown["path"], stages)
    return figures.transfers_figure(pairs, made.reshape(len(pairs), len(sets), *made.shape[1:]), sets)


def draw_swaps(score_table: pd.DataFrame) -> Figure:
    """What became of parts where some were swapped, by task and by part."""
    return figures.swaps_figure(score_table[score_table["low"].notna()])


def draw_leakage(scores: pd.DataFrame, generation_scores: dict, part_names: dict[int, str], stages: Stages) -> Figure:
    """What else swaps changed, and the pictures in which they changed most."""
    by_swap = generation_scores["leakage_by_swap"]
    names = np.array(list(part_names.values()))
    swaps, by_id = Swaps.of_plan(scores, len(names)), scores.set_index("id")
    looks = "seen" if "seen" in scores else "found"
    leaking = scores[scores["leakage"] > 0].sort_values("leakage", ascending=False, kind="stable")
    leaks = []
    for row, after in leaking.drop_duplicates("noise").head(swap_figures.MOST_LEAKS).iterrows():
        before, since = by_id.loc[after["before"]], swaps.since[row]
        differs = np.array(list(before[looks]), object) != np.array(list(after[looks]), object)
        swapped, changed = (names[parts].tolist() for parts in (since, differs & ~since))
        earlier, later = _load([before["path"], after["path"]], stages)
        leaks.append(swap_figures.Leak(earlier, later, swapped, changed))
    shares, counts = np.array(by_swap["share"], float), np.array(by_swap["pictures"])
    return swap_figures.leakage_figure(shares, counts, list(names), leaks)


def draw_regions(
    scores: pd.DataFrame,
    records: pd.DataFrame,
    part_masks: Path,
    part_names: dict[int, str],
    evaluate: EvaluateOptions,
    stages: Stages,
) -> Figure:
    """Random reconstructions: the base's masks, where tokens looked, where parts were found."""
    shown = _examples(scores[scores["kind"] == "reconstruction"], evaluate, "regions")
    rows = pd.Index(records["id"]).get_indexer(shown["sources"].str[0])
    masks = load_label_maps(part_masks)[rows]
    looked = load_looked([looked_path(stages.root / path) for path in shown["path"]], masks.shape[1])
    found = np.stack(list(shown["label_map"])).reshape(masks.shape)
    told = [_in_words(scores) for scores in shown.to_dict("records")]
    bases, made = _load(records["path"].iloc[rows], stages), _load(shown["path"], stages)
    examples = map(swap_figures.Regions, bases, made, masks, looked, found, told)
    return swap_figures.regions_figure(list(examples), list(part_names.values()))


def _in_words(scores: Mapping[str, Any]) -> str:
    return "; ".join(MEASURES[name].caption(scores) for name in names_with(of_regions=True))


def draw_losses(training_losses: pd.DataFrame) -> Figure:
    """The training curves."""
    return figures.losses_figure(training_losses)


def draw_scores(score_table: pd.DataFrame) -> Figure:
    """The scores between floor and ceiling."""
    return figures.scores_figure(score_table[score_table["low"].notna()])
