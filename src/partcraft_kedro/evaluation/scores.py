"""One row of scores for each generated picture, with its ceiling and its floor.

Ceiling: what a perfect model would score. For a reconstruction the real picture, through the VAE and back; for a
composition of drawings the one that its world itself draws of it. Floor: another real picture, chosen at random.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from partcraft_kedro.drawn.truth import Truth
from partcraft_kedro.evaluation.metrics import bootstrap, cosine_similarity, exact_matching_rate
from partcraft_kedro.evaluation.part_identity import PartIdentity
from partcraft_kedro.images.decoding import load_ahead, load_pictures
from partcraft_kedro.images.tensors import from_vae, to_vae
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.randomness import numpy_generator

BATCH = 32
OF_CODES = ("emr", "cosim")
OF_TRUTH = ("judge", "arrived", "stayed", "shape")


@torch.inference_mode()
def through_vae(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Encode and decode a batch: (n, h, w, 3) uint8 → the same shape."""
    return from_vae(vae.decode(vae.encode(to_vae(pictures).to(vae.device)).latent_dist.mean).sample)


def random_others(plan: pd.DataFrame, records: pd.DataFrame, seed: int) -> list[str | None]:
    """For each planned picture the id of a real one that is none of its sources; None where all pictures are."""
    others = []
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
    """EMR and CoSim of pictures against the codes they should show; columns emr, cosim, and code as found."""
    found = predictor.predict(pictures)
    cosim = cosine_similarity(codes, found, predictor.get_centroids(codes), predictor.get_centroids(found))
    return pd.DataFrame({"emr": exact_matching_rate(codes, found), "cosim": cosim, "found": list(found)})


def score_pictures(
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
    measures × {"", _ceiling, _floor}: OF_CODES, and with a truth OF_TRUTH.
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
    measures = [*OF_CODES, *(OF_TRUTH if truth else ())]
    if truth:
        intended = [truth.intended(row, records)[0] for _, row in plan.iterrows()]
        lent = truth.lent(plan)

    def score(rows: np.ndarray, batches: Iterable[np.ndarray], name: str) -> pd.DataFrame:
        scored = []
        for pictures in tqdm(batches, desc=f"score {name}", total=-(-len(rows) // BATCH), unit="batch"):
            done = sum(map(len, scored))
            of_batch = rows[done : done + len(pictures)]
            scores = score_codes(predictor, codes[of_batch], pictures).set_index(plan.index[of_batch])
            if truth:
                seen = truth.score([intended[row] for row in of_batch], [lent[row] for row in of_batch], pictures)
                scores = scores.join(seen.set_index(scores.index))
            scored.append(scores)
        return pd.concat(scored) if scored else pd.DataFrame(columns=[*measures, "found"], dtype=float)

    every = np.arange(len(plan))
    reconstructed = np.flatnonzero(plan["kind"] == "reconstruction")
    composed = np.flatnonzero(plan["kind"] != "reconstruction") if truth else every[:0]
    bases = load_ahead(_batches([real[row] for row in reconstructed]), size)
    best = score(reconstructed, (through_vae(vae, batch) for batch in bases), "ceilings")
    if truth:
        drawings = truth.draw_intended(plan.iloc[composed], records, BATCH)
        best = pd.concat([best, score(composed, drawings, "ceilings of compositions")])
    floor = score(has_other, load_ahead(_batches(others), size), "floors")
    return (
        table.join(score(every, load_ahead(_batches(paths), size), "generated pictures"))
        .join(best[measures].add_suffix("_ceiling"))
        .join(floor[measures].add_suffix("_floor"))
    )


def _batches(paths: Sequence[Path]) -> list[Sequence[Path]]:
    return [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]


def score_identity(
    identity: PartIdentity,
    table: pd.DataFrame,
    records: pd.DataFrame,
    data_folder: Path,
    *,
    predictor: PartPredictor,
    vae: AutoencoderKL,
    size: int,
    seed: int,
) -> pd.DataFrame:
    """`part_identity`: the mean cosine of a picture's parts, background left out, with those of their sources.

    table: of `score_pictures`. Ceiling, for reconstructions: the source through the VAE and back; floor: another real
    picture. NaN where no part shows in both.
    """
    others = random_others(table, records, seed)
    rows = []
    for start in tqdm(range(0, len(table), BATCH), desc="score part identity", unit="batch"):
        batch = table.iloc[start : start + BATCH]
        sources = sorted({source for row in batch["sources"] for source in row})
        origins = np.array([_origins(row, sources, predictor.part_count) for row in batch.itertuples()])
        real = _load([records.loc[source, "path"] for source in sources], data_folder, size)
        embedded = identity.embed_parts(real, predictor.segment(real)[0])
        rebuilt = (batch["kind"] == "reconstruction").to_numpy()
        of_batch = others[start : start + BATCH]
        has_other = np.array([other is not None for other in of_batch])
        shown = {"": (np.ones(len(batch), bool), _load(batch["path"], data_folder, size))}
        if has_other.any():
            paths = [records.loc[other, "path"] for other in of_batch if other is not None]
            shown["_floor"] = has_other, _load(paths, data_folder, size)
        if rebuilt.any():
            shown["_ceiling"] = rebuilt, through_vae(vae, real[origins[rebuilt, 0]])
        scores = pd.DataFrame(np.nan, batch.index, [f"part_identity{suffix}" for suffix in ("", "_floor", "_ceiling")])
        for suffix, (of, pictures) in shown.items():
            cosines = identity.compare(pictures, predictor.segment(pictures)[0], embedded, origins[of])
            scores.loc[of, f"part_identity{suffix}"] = pd.DataFrame(cosines[:, 1:]).mean(axis=1).to_numpy()
        rows.append(scores)
    return pd.concat(rows)


def _origins(row: Any, sources: list[str], part_count: int) -> list[int]:
    """For each part, background first, the place in `sources` of the picture it is from."""
    origins = [sources.index(row.sources[0])] * (part_count + 1)
    for source, part in zip(row.sources[1:], row.swapped, strict=True):
        origins[part] = sources.index(source)
    return origins


def _load(paths: Iterable[str], data_folder: Path, size: int) -> np.ndarray:
    return load_pictures([data_folder / path for path in paths], size)


def summarise(scores: pd.DataFrame, resamples: int, seed: int) -> dict:
    """The tree of metrics.json: reconstruction, composition.<sources> and transfer.<parts>, each measure with its
    interval, ceiling and floor."""
    known = [name for name in (*OF_CODES, *OF_TRUTH, "part_identity") if name in scores]

    def of(rows: pd.DataFrame) -> dict:
        return {
            measure: bootstrap(rows[measure].to_numpy(), resamples, seed)
            | {bound: _mean_or_none(rows[f"{measure}_{bound}"]) for bound in ("ceiling", "floor")}
            for measure in known
            if measure not in ("arrived", "stayed") or rows[measure].notna().any()  # of what is swapped alone
        }

    kinds = {kind: scores[scores["kind"] == kind] for kind in ("reconstruction", "composition", "transfer")}
    return {
        "reconstruction": of(kinds["reconstruction"]),
        "composition": {str(count): of(rows) for count, rows in kinds["composition"].groupby("source_count")},
        "transfer": {parts: of(rows) for parts, rows in kinds["transfer"].groupby("transferred", sort=False)},
    }


def _mean_or_none(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.mean())
