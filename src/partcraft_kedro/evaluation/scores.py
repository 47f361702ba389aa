"""One row of scores for each generated picture, with its ceiling and its floor.

Ceiling: what a perfect model would score. For a reconstruction the real picture, through the VAE and back; for a
composition of drawings the one that its world itself draws of it. Floor: another real picture, chosen at random.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from partcraft_kedro.drawn.truth import Truth
from partcraft_kedro.evaluation.measures import MEASURES
from partcraft_kedro.evaluation.metrics import bootstrap, cosine_similarity, exact_matching_rate
from partcraft_kedro.images.decoding import load_ahead
from partcraft_kedro.images.tensors import from_vae, to_vae
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.randomness import numpy_generator

BATCH = 32


@torch.inference_mode()
def through_vae(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Encode and decode a batch: (n, h, w, 3) uint8 → the same shape."""
    return from_vae(vae.decode(vae.encode(to_vae(pictures).to(vae.device)).latent_dist.mean).sample)


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
    """Pictures against the codes they should show: the measures `of_codes`, and `found`, the pictures' own codes."""
    found = predictor.predict(pictures)
    cosim = cosine_similarity(codes, found, predictor.get_centroids(codes), predictor.get_centroids(found))
    return pd.DataFrame({"emr": exact_matching_rate(codes, found), "cosim": cosim, "found": list(found)})


def score_plan(
    plan: pd.DataFrame,
    records: pd.DataFrame,
    generated_folder: Path,
    data_folder: Path,
    *,
    predictor: PartPredictor,
    vae: AutoencoderKL,
    size: int,
    seed: int,
    truth: Truth | None = None,
) -> pd.DataFrame:
    """Score every generated picture.

    records: with index `id`; truth: of drawings, None for photographs, whose compositions then have no ceiling and no
    judgement. Pictures are decoded a batch ahead and never held all at once.
    Columns: the plan's, `source_count`, `path` relative to the data folder, `found`, the picture's own code, and
    measures × {"", _ceiling, _floor}: those of `score_codes`, and with a truth those of `Truth.score`.
    """
    codes = np.stack(plan["code"])
    paths = [generated_folder / f"{name}.png" for name in plan["id"]]
    real = [data_folder / records.loc[row[0], "path"] for row in plan["sources"]]
    chosen = random_others(plan, records, seed)
    has_other = np.flatnonzero([other is not None for other in chosen])
    others = [data_folder / records.loc[chosen[row], "path"] for row in has_other]
    table = plan.assign(
        source_count=plan["sources"].map(len), path=[path.relative_to(data_folder).as_posix() for path in paths]
    )
    if truth:
        intended = [truth.intended(row, records)[0] for _, row in plan.iterrows()]
        lent = truth.lent(plan)

    def score(rows: np.ndarray, batches: Iterable[np.ndarray], name: str) -> pd.DataFrame:
        scored: list[pd.DataFrame] = []
        for pictures in tqdm(batches, desc=f"score {name}", total=-(-len(rows) // BATCH), unit="batch"):
            done = sum(map(len, scored))
            of_batch = rows[done : done + len(pictures)]
            scores = score_codes(predictor, codes[of_batch], pictures).set_index(plan.index[of_batch])
            if truth:
                seen = truth.score([intended[row] for row in of_batch], [lent[row] for row in of_batch], pictures)
                scores = scores.join(seen.set_index(scores.index))
            scored.append(scores)
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
    scores = score(every, load_ahead(_batches(paths), size), "generated pictures")
    table = table.join(scores)
    for bound, of_bound in (("ceiling", best), ("floor", floor)):
        # A column for each measure, also where no picture has this bound.
        measured = of_bound.reindex(columns=scores.columns.drop("found")).astype(float)
        table = table.join(measured.add_suffix(f"_{bound}"))
    return table


def _batches(paths: Sequence[Path]) -> list[Sequence[Path]]:
    return [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]


def summarise(scores: pd.DataFrame, resamples: int, seed: int) -> list[dict]:
    """The score table's rows: of each task, reconstruction, composition of <sources> and transfer of <parts>, every
    measure with value, interval, ceiling and floor, None where there is none.

    scores: of `score_plan`, for every measure with the columns `<name>`, `<name>_ceiling` and `<name>_floor`.
    """
    kinds = {kind: scores[scores["kind"] == kind] for kind in ("reconstruction", "composition", "transfer")}
    tasks = {"reconstruction": kinds["reconstruction"]}
    tasks |= {f"composition of {count}": rows for count, rows in kinds["composition"].groupby("source_count")}
    tasks |= {f"transfer of {parts}": rows for parts, rows in kinds["transfer"].groupby("transferred", sort=False)}
    return [
        {
            "task": task,
            "measure": name,
            **bootstrap(rows[name].to_numpy(), resamples, seed),
            "ceiling": _mean_or_none(rows[f"{name}_ceiling"]),
            "floor": _mean_or_none(rows[f"{name}_floor"]) if measure.of_request else None,
        }
        for task, rows in tasks.items()
        for name, measure in MEASURES.items()
        if name in scores and not (measure.of_swaps and rows[name].isna().all())
    ]


def _mean_or_none(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.mean())
