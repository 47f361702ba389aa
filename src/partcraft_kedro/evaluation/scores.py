"""One row of scores for each generated picture, with its ceiling and its floor.

Ceiling: what a perfect model would score. For a reconstruction the real picture, through the VAE and back; for a
composition of drawings the one that its world itself draws of it. Floor: another real picture, chosen at random.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from partcraft_kedro.drawn.truth import Truth
from partcraft_kedro.evaluation.measures import MEASURES, PART
from partcraft_kedro.evaluation.metrics import bootstrap, cosine_similarity, exact_matching_rate, mean_of_known
from partcraft_kedro.evaluation.regions import load_looked, overlap
from partcraft_kedro.evaluation.swaps import Swaps, equal
from partcraft_kedro.generation.plan import looked_path
from partcraft_kedro.images.decoding import load_ahead
from partcraft_kedro.images.tensors import from_vae, to_vae
from partcraft_kedro.parts.predictor import ABSENT, PartPredictor
from partcraft_kedro.passes import as_many_as_fit
from partcraft_kedro.randomness import numpy_generator

BATCH = 32
_OF_PARTS = "of_parts/"  # columns that are no picture's


@torch.inference_mode()
def through_vae(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Encode and decode a batch: (n, h, w, 3) uint8 → the same shape. Raises UserError if memory does not hold one."""

    def pass_on(at_once: int) -> np.ndarray:
        pieces = to_vae(pictures).to(vae.device).split(at_once)
        return from_vae(torch.cat([vae.decode(vae.encode(piece).latent_dist.mean).sample for piece in pieces]))

    return as_many_as_fit(pass_on, len(pictures), "encoding and decoding pictures", "give base.device=cpu")[0]


def random_others(plan: pd.DataFrame, records: pd.DataFrame, seed: int) -> list[str | None]:
    """For each planned picture the id of a real one that is none of its sources; None where all pictures are."""
    others: list[str | None] = []
    for row in plan.itertuples():
        sources = np.sort(records.index.get_indexer(list(set(row.sources))))
        others_left = len(records) - len(sources)
        if not others_left:
            others.append(None)
            continue
        drawn = numpy_generator(seed, "floor", row.id).integers(others_left)  # among all but these
        for source in sources:
            drawn += source <= drawn
        others.append(str(records.index[drawn]))
    return others


def score_codes(predictor: PartPredictor, codes: np.ndarray, pictures: np.ndarray) -> pd.DataFrame:
    """Pictures against the codes they should show: the measures `of_codes`, and of the pictures themselves `found`,
    their codes, and `label_map`."""
    label_maps, found, _ = predictor.segment(pictures)
    cosim = cosine_similarity(codes, found, predictor.get_centroids(codes), predictor.get_centroids(found))
    emr = exact_matching_rate(codes, found)
    return pd.DataFrame({"emr": emr, "cosim": cosim, "found": list(found), "label_map": list(label_maps)})


@dataclass(frozen=True)
class Scored:
    """Scores of n planned pictures.

    table: a row for each; of_parts: the same of each part, (n, M+1) float, NaN where there is nothing to tell, by the
    column of `table` that their means are in.
    """

    table: pd.DataFrame
    of_parts: dict[str, np.ndarray]

    def join(self, table: pd.DataFrame, of_parts: Mapping[str, np.ndarray]) -> "Scored":
        """With further columns, and with those of `of_parts`."""
        means = {name: mean_of_known(values, axis=1) for name, values in of_parts.items()}
        return Scored(self.table.join(table).assign(**means), {**self.of_parts, **of_parts})

    def as_table(self, plan: pd.DataFrame) -> pd.DataFrame:
        """All that the plan does not say, in one table with its index."""
        of_parts = {f"{_OF_PARTS}{name}": list(values) for name, values in self.of_parts.items()}
        return self.table.drop(columns=plan.columns).assign(**of_parts).set_index(plan.index)

    @classmethod
    def of_tables(cls, plan: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> "Scored":
        """The inverse, from the tables of all pieces of a plan."""
        rows = plan.join(pd.concat(tables))
        names = [name for name in rows if name.startswith(_OF_PARTS)]
        of_parts = {name.removeprefix(_OF_PARTS): np.stack(rows[name]) for name in names}
        return cls(rows.drop(columns=names), of_parts)


def score_plan(
    plan: pd.DataFrame,
    records: pd.DataFrame,
    label_maps: np.ndarray,
    generated_folder: Path,
    data_folder: Path,
    *,
    predictor: PartPredictor,
    vae: AutoencoderKL,
    size: int,
    seed: int,
    truth: Truth | None = None,
) -> Scored:
    """Score every generated picture.

    records: with index `id`; label_maps: of all of them, (n, grid, grid) uint8; truth: of drawings, None for
    photographs, whose compositions then have no ceiling and no judgement, and whose swaps are told by codes.
    Pictures are decoded a batch ahead and never held all at once.
    Columns: the plan's; `source_count`; `path` relative to the data folder; `found`, the picture's own code;
    `label_map`, where its parts are, (grid · grid,); with a truth `seen`, the looks of its parts, None where one does
    not show; and measures × {"", _ceiling, _floor}: of `score_codes`, of `Swaps`, of regions, and of `Truth.score`.
    """
    plan = plan.reset_index(drop=True)
    codes = np.stack(plan["code"])
    labels = codes.shape[1]
    paths = [generated_folder / f"{name}.png" for name in plan["id"]]
    real = [data_folder / records.loc[row[0], "path"] for row in plan["sources"]]
    chosen = random_others(plan, records, seed)
    has_other = np.flatnonzero([other is not None for other in chosen])
    others = [data_folder / records.loc[chosen[row], "path"] for row in has_other]
    if truth:
        intended = [truth.intended(row, records)[0] for _, row in plan.iterrows()]

    def score(rows: np.ndarray, batches: Iterable[np.ndarray], name: str) -> pd.DataFrame:
        scored: list[pd.DataFrame] = []
        for pictures in tqdm(batches, desc=f"score {name}", total=-(-len(rows) // BATCH), unit="batch"):
            done = sum(map(len, scored))
            of_batch = rows[done : done + len(pictures)]
            scores = score_codes(predictor, codes[of_batch], pictures)
            if truth:
                scores = scores.join(truth.score([intended[row] for row in of_batch], pictures))
                for column in ("asked", "seen"):
                    scores[column] = [truth.by_part(looks, labels) for looks in scores[column]]
            else:
                scores["asked"] = [_shown(code) for code in codes[of_batch]]
                scores["seen"] = [_shown(code) for code in scores["found"]]
            scored.append(scores.set_index(of_batch))
        return pd.concat(scored) if scored else pd.DataFrame()

    every = np.arange(len(plan))
    reconstructed = np.flatnonzero(plan["kind"] == "reconstruction")
    composed = np.flatnonzero(plan["kind"] != "reconstruction") if truth else every[:0]
    bases = load_ahead(_batches([real[row] for row in reconstructed]), size)
    best = score(reconstructed, (through_vae(vae, batch) for batch in bases), "ceilings")
    if truth:
        drawings = truth.draw_intended(plan.iloc[composed], records, BATCH)
        best = pd.concat([best, score(composed, drawings, "ceilings of compositions")])
    floor = score(has_other, load_ahead(_batches(others), size), "floors")
    made = score(every, load_ahead(_batches(paths), size), "generated pictures")

    table = plan.assign(
        source_count=plan["sources"].map(len), path=[path.relative_to(data_folder).as_posix() for path in paths]
    )
    table = table.assign(found=made["found"], label_map=made["label_map"].map(np.ravel))
    scored = Scored(table.assign(seen=made["seen"]) if truth else table, {})
    swaps = Swaps.of_plan(plan, labels)
    masks = label_maps[records.index.get_indexer([row[0] for row in plan["sources"]])]
    looked = load_looked(map(looked_path, paths), label_maps.shape[1])
    measured = made.columns.drop(["found", "label_map", "asked", "seen"])
    for bound, of_bound, before in (("", made, made), ("_ceiling", best, best), ("_floor", floor, made)):
        # A column for each measure, also where no picture has this bound.
        of_pictures = of_bound.reindex(columns=measured).astype(float).add_suffix(bound)
        of_parts = _of_swaps(of_bound, before, swaps) | _of_regions(of_bound, bound, looked, masks, labels)
        scored = scored.join(of_pictures, {f"{name}{bound}": values for name, values in of_parts.items()})
    return scored


def _of_swaps(scored: pd.DataFrame, before: pd.DataFrame, swaps: Swaps) -> dict[str, np.ndarray]:
    """Transfer, preservation and leakage of the rows that were scored, compared with those of `before`."""
    shape, rows = swaps.swapped.shape, scored.index.to_numpy(int)
    as_asked, same = np.full(shape, np.nan), np.full(shape, np.nan)
    if len(rows):
        as_asked[rows] = equal(_looks(scored["asked"]), _looks(scored["seen"]))
    chained = rows[np.isin(swaps.before[rows], before.index)]
    if len(chained):
        same[chained] = equal(_looks(scored["seen"][chained]), _looks(before["seen"][swaps.before[chained]]))
    return swaps.measures(as_asked, same)


def _of_regions(
    scored: pd.DataFrame, bound: str, looked: np.ndarray, masks: np.ndarray, labels: int
) -> dict[str, np.ndarray]:
    """The overlaps of regions, of the rows that were scored. looked, masks: of all rows, (n, grid, grid).

    All NaN where none was: the pieces of a plan have the same columns.
    """
    rows = scored.index.to_numpy(int)
    found = np.stack(list(scored["label_map"])) if len(rows) else masks[:0]
    pairs = {"iou_found_mask": (found, masks[rows])}
    if bound != "_ceiling":  # where the tokens of a perfect model would look nobody knows
        pairs["iou_looked_found"] = looked[rows], found
        pairs["iou_looked_mask"] = looked[rows], found if bound else masks[rows]
    of_parts = {name: np.full((len(masks), labels), np.nan) for name in pairs}
    for name, regions in pairs.items():
        of_parts[name][rows] = overlap(*regions, labels)
    return of_parts


def _looks(of_pictures: pd.Series) -> np.ndarray:
    """Lists of looks, None where a part does not show → (n, M+1)."""
    return np.array(list(of_pictures), object)


def _shown(code: np.ndarray) -> list[int | None]:
    return [None if variant == ABSENT else int(variant) for variant in code]


def _batches(paths: Sequence[Path]) -> list[Sequence[Path]]:
    return [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]


def summarise(scores: pd.DataFrame, resamples: int, seed: int) -> list[dict]:
    """The score table's rows: of each task, reconstruction, composition of <sources> and transfer of <parts>, every
    measure with value, interval, ceiling and floor, None where there is none.

    scores: with a column `<name>` for every measure, and `<name>_ceiling` and `<name>_floor` where it has them.
    """
    kinds = {kind: scores[scores["kind"] == kind] for kind in ("reconstruction", "composition", "transfer")}
    tasks = {"reconstruction": kinds["reconstruction"]}
    tasks |= {f"composition of {count}": rows for count, rows in kinds["composition"].groupby("source_count")}
    tasks |= {f"transfer of {parts}": rows for parts, rows in kinds["transfer"].groupby("transferred", sort=False)}
    return [
        {"task": task, **_row(name, rows, resamples, seed)}
        for task, rows in tasks.items()
        for name, measure in MEASURES.items()
        if name in rows and not (measure.of_swaps and rows[name].isna().all())
    ]


def summarise_parts(scored: Scored, resamples: int, seed: int) -> list[dict]:
    """The same of each part, the task being `part <number>`, over all pictures in which it was measured.

    Pictures of one noise, of which each has one swap more than the other, are resampled together.
    """
    chains = pd.factorize(scored.table["noise"])[0]
    labels = len(scored.table["code"].iloc[0])
    tasks = {part: pd.DataFrame({name: of[:, part] for name, of in scored.of_parts.items()}) for part in range(labels)}
    return [
        {"task": f"{PART}{part}", **_row(name, values, resamples, seed, chains)}
        for part, values in tasks.items()
        for name in MEASURES
        if name in values and values[name].notna().any()
    ]


def _row(name: str, rows: pd.DataFrame, resamples: int, seed: int, groups: np.ndarray | None = None) -> dict:
    """A measure with value, interval, ceiling and floor."""
    floor = _mean_or_none(rows, f"{name}_floor") if MEASURES[name].of_request else None
    measured = bootstrap(rows[name].to_numpy(), resamples, seed, groups)
    return {"measure": name, **measured, "ceiling": _mean_or_none(rows, f"{name}_ceiling"), "floor": floor}


def _mean_or_none(rows: pd.DataFrame, column: str) -> float | None:
    return None if column not in rows or rows[column].isna().all() else float(rows[column].mean())
