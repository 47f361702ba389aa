"""One row of scores for each generated picture, with its ceiling and its floor.

Ceiling: what a perfect model would score. For a reconstruction the real picture, through the VAE and back; for a
composition of creatures the picture that the creature generator itself draws of it. Floor: another real picture,
chosen at random.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL

from partcraft_kedro.evaluation.judge import Judge
from partcraft_kedro.evaluation.metrics import (
    bootstrap,
    cosine_similarity,
    exact_matching_rate,
    frechet_distance,
    kernel_distance,
)
from partcraft_kedro.images import creatures
from partcraft_kedro.images.records import load_pictures
from partcraft_kedro.images.tensors import from_vae, to_unit, to_vae
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.randomness import numpy_generator

BATCH = 32


@torch.inference_mode()
def through_vae(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Encode and decode: (n, h, w, 3) uint8 → the same shape."""
    again = []
    for start in range(0, len(pictures), BATCH):
        batch = to_vae(pictures[start : start + BATCH]).to(vae.device)
        again.append(from_vae(vae.decode(vae.encode(batch).latent_dist.mean).sample))
    return np.concatenate(again)


def intended_creature(
    row: pd.Series, records: pd.DataFrame, matching: dict[int, int]
) -> tuple[creatures.Creature, creatures.Pose]:
    """What a planned picture should show: the base in its pose, with each swapped part from its source.

    records: indexed by id; matching: discovered label → true label. A swapped part that stands for no true label
    stays the base's. Legs show where those of their source do.
    """
    creature, pose = creatures.creature_from_row(records.loc[row["sources"][0]].to_dict())
    for source, part in zip(row["sources"][1:], row["swapped"], strict=True):
        if part in matching:
            label = creatures.LABELS[matching[part]]
            other, other_pose = creatures.creature_from_row(records.loc[source].to_dict())
            creature = creature.with_attribute(label, other)
            if label == "legs":
                pose = replace(pose, legs_visible=other_pose.legs_visible)
    return creature, pose


def draw_intended(plan: pd.DataFrame, records: pd.DataFrame, matching: dict[int, int]) -> np.ndarray:
    """What the creature generator draws of each planned picture, (n, h, w, 3) uint8."""
    return np.stack([creatures.draw(*intended_creature(row, records, matching))[0] for _, row in plan.iterrows()])


def random_others(plan: pd.DataFrame, records: pd.DataFrame, seed: int) -> list[str]:
    """For each planned picture the id of a real one that is none of its sources."""
    others = []
    for row in plan.itertuples():
        rng = numpy_generator(seed, "floor", row.id)
        candidates = [i for i in records.index if i not in set(row.sources)]
        others.append(str(rng.choice(candidates)))
    return others


def score_codes(predictor: PartPredictor, codes: np.ndarray, pictures: np.ndarray) -> pd.DataFrame:
    """EMR and CoSim of pictures against the codes they should show; columns emr, cosim, and code as found."""
    found = predictor.predict(pictures)
    cosim = cosine_similarity(codes, found, predictor.get_centroids(codes), predictor.get_centroids(found))
    return pd.DataFrame({"emr": exact_matching_rate(codes, found), "cosim": cosim, "found": list(found)})


def score_looks(judge: Judge, intended: list[creatures.Creature], pictures: np.ndarray) -> np.ndarray:
    """The judge's view: the share of labels whose look is the intended one, among those it sees, (n,) float."""
    scores = []
    for start in range(0, len(pictures), BATCH):
        batch = to_unit(pictures[start : start + BATCH])
        for creature, seen in zip(intended[start : start + BATCH], judge.attributes(batch), strict=True):
            # Legs may be hidden by the pose, which a prompt does not fix; every other part must show.
            labels = [label for label in creatures.LABELS if label != "legs" or seen["legs"] is not None]
            scores.append(np.mean([seen[label] == creature.attribute(label) for label in labels]))
    return np.array(scores)


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
    judge: Judge | None = None,
    matching: dict[int, int] | None = None,
) -> pd.DataFrame:
    """Score every generated picture.

    records: with index `id`; judge and matching (discovered label → true label): for creatures, None for
    photographs, whose compositions then have no ceiling and no judgement.
    Columns: the plan's, `source_count`, `path` relative to the data folder, `found`, the picture's own code, and
    {emr, cosim, judge} × {"", _ceiling, _floor}.
    """
    codes = np.stack(plan["code"])
    paths = [generated_folder / f"{name}.png" for name in plan["id"]]
    others = random_others(plan, records, seed)
    bases = load_pictures([data_folder / records.loc[row[0], "path"] for row in plan["sources"]], size)
    reconstructed = (plan["kind"] == "reconstruction").to_numpy()
    best = through_vae(vae, bases)
    if matching is not None and not reconstructed.all():
        best[~reconstructed] = draw_intended(plan[~reconstructed], records, matching)
    shown = {
        "": load_pictures(paths, size),
        "_ceiling": best,
        "_floor": load_pictures([data_folder / records.loc[i, "path"] for i in others], size),
    }
    table = plan.assign(
        source_count=plan["sources"].map(len), path=[path.relative_to(data_folder).as_posix() for path in paths]
    )
    intended = []
    if judge is not None:
        intended = [intended_creature(row, records, matching or {})[0] for _, row in plan.iterrows()]
    for suffix, pictures in shown.items():
        scored = score_codes(predictor, codes, pictures)
        table[f"emr{suffix}"], table[f"cosim{suffix}"] = scored["emr"].to_numpy(), scored["cosim"].to_numpy()
        if suffix == "":
            table["found"] = list(scored["found"])
        if judge is not None:
            table[f"judge{suffix}"] = score_looks(judge, intended, pictures)
    if matching is None:
        table.loc[~reconstructed, ["emr_ceiling", "cosim_ceiling"]] = np.nan
    return table


def distances(
    embed: Callable[[torch.Tensor], torch.Tensor], features_named: str, real: np.ndarray, generated: np.ndarray
) -> dict:
    """Fréchet and kernel distance between features of real and generated pictures, (n, h, w, 3) uint8.

    embed: (n, 3, h, w) in 0..1 → (n, width).
    """

    def of(pictures: np.ndarray) -> np.ndarray:
        batches = (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))
        return torch.cat([embed(to_unit(batch)) for batch in batches]).numpy()

    features = of(real), of(generated)
    shared = {"n": len(generated), "n_real": len(real), "features": features_named}
    return {
        "frechet": {"value": frechet_distance(*features), **shared},
        "kernel": {"value": kernel_distance(*features), **shared},
    }


def summarise(scores: pd.DataFrame, resamples: int, seed: int) -> dict:
    """The tree of metrics.json: reconstruction and composition.<sources>, each measure with its interval,
    ceiling and floor."""
    measures = [name for name in ("emr", "cosim", "judge") if name in scores]

    def of(rows: pd.DataFrame) -> dict:
        return {
            measure: bootstrap(rows[measure].to_numpy(), resamples, seed)
            | {bound: _mean_or_none(rows[f"{measure}_{bound}"]) for bound in ("ceiling", "floor")}
            for measure in measures
        }

    compositions = scores[scores["kind"] == "composition"]
    return {
        "reconstruction": of(scores[scores["kind"] == "reconstruction"]),
        "composition": {str(count): of(rows) for count, rows in compositions.groupby("source_count")},
    }


def _mean_or_none(values: pd.Series) -> float | None:
    return None if values.isna().all() else float(values.mean())
