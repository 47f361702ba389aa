"""Part discovery on the training pictures, then masks and codes of all pictures, and how good they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.compute import Engine
from partcraft_kedro.images.crops import typical_crop
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.options import BaseModelOptions, ComputeOptions, EvaluateOptions, PartsOptions
from partcraft_kedro.parts import figures, names
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import Stage, StageRef, Stages

_WORK = "partcraft_kedro.pipelines.parts.work"
CROPPING = Stage("crop_changes", "04_feature", version=1, work=f"{_WORK}.cropping")
DISCOVERY = Stage("discovery", "05_model_input", version=6, work=f"{_WORK}.discovery")
LABELLING = Stage("labels", "05_model_input", version=5, work=f"{_WORK}.labelling")
SCORING = Stage("part_scores", "05_model_input", version=1, work=f"{_WORK}.scoring")
_SHOWN = 256  # pixels of a picture that crops are cut from
_LARGE = 512  # pixels of one that is shown whole
_WORST = 6  # pictures of each kind of failure
_VARIANTS, _VARIANTS_OF_MANY = 6, 4  # shown of each part, of six parts at most and of more
_CROPS = 5  # shown of each variant


def discover_parts(
    features: StageRef,
    records: pd.DataFrame,
    parts: PartsOptions,
    base: BaseModelOptions,
    compute: ComputeOptions,
    stages: Stages,
) -> Path:
    """Fit the three tiers of centroids, for `whitened` after a look at random crops; returns the part predictor's
    folder."""
    seen: dict[str, Any] = {"features": features, "records": records, "parts": parts}
    if parts.discovery == "whitened":
        of_crops = {"features": features, "records": records, "seed": parts.seed}
        with Engine(compute, base.device, stages.root) as engine:
            seen["crop_changes"] = stages.run(CROPPING, of_crops, {"engine": engine})
    return stages.run(DISCOVERY, seen).folder / "part_predictor"


def label_pictures(
    part_predictor: Path, features: StageRef, records: pd.DataFrame, stages: Stages
) -> tuple[Path, pd.DataFrame]:
    """Label maps of all pictures, as a folder with one safetensors file, and their codes by record id, with
    their cosines to the variants' centroids."""
    seen = {"part_predictor": part_predictor, "features": features, "records": records}
    found = stages.run(LABELLING, seen)
    return found.folder / "part_masks", found.table("codes")


def score_discovery(records: pd.DataFrame, part_masks: Path, codes: pd.DataFrame, stages: Stages) -> dict:
    """How good the parts are, against what is known of the pictures: true masks, or keypoints, boxes and classes."""
    seen = {"records": records, "part_masks": part_masks, "codes": codes}
    return stages.run(SCORING, seen, {"root": stages.root}).summary


def name_parts(discovery_scores: dict, codes: pd.DataFrame, parts: PartsOptions) -> dict[int, str]:
    """The parts' names: the user's, else those that masks or keypoints suggest, else numbers."""
    count = len(codes["code"].iloc[0])
    known = {int(label): name for label, name in discovery_scores["matching"].items()}
    if parts.names:
        known |= names.read_names(parts.names, count)
    return dict(enumerate(names.complete_names(count, known)))


def draw_part_maps(
    records: pd.DataFrame,
    codes: pd.DataFrame,
    part_masks: Path,
    part_names: dict[int, str],
    evaluate: EvaluateOptions,
    stages: Stages,
) -> Figure:
    """Random pictures with their part maps and codes (the paper's Fig. 1)."""
    chosen = numpy_generator(evaluate.seed, "part maps").permutation(len(records))[: evaluate.examples]
    shown = records.iloc[sorted(chosen)]
    label_maps = load_label_maps(part_masks)[shown.index]
    pictures = load_pictures([stages.root / path for path in shown["path"]], _LARGE)
    of_shown = np.stack(codes.set_index("id").loc[shown["id"], "code"])
    return figures.part_maps_figure(pictures, label_maps, of_shown, _headings(part_names))


def draw_variants(
    records: pd.DataFrame,
    codes: pd.DataFrame,
    part_masks: Path,
    part_names: dict[int, str],
    discovery_scores: dict,
    stages: Stages,
) -> Figure:
    """For each part its commonest variants, each by crops of pictures from the nearest to its centroid to the farthest,
    evenly spread over all that have it."""
    label_maps = load_label_maps(part_masks)
    code, cosine = np.stack(codes["code"]), np.stack(codes["cosine"])
    sheets = []
    for part, heading in zip(part_names, _headings(part_names), strict=True):
        looks = _looks(records, discovery_scores["matching"].get(str(part)))
        most = _VARIANTS if len(part_names) <= 6 else _VARIANTS_OF_MANY
        variants = pd.Series(code[:, part][code[:, part] >= 0]).value_counts().head(most)
        rows = []
        for variant, count in variants.items():
            members = np.flatnonzero(code[:, part] == variant)
            typical = members[np.argsort(-cosine[members, part], kind="stable")]
            shown = typical[np.linspace(0, count - 1, min(count, _CROPS)).round().astype(int)]
            pictures = load_pictures([stages.root / records["path"].iloc[row] for row in shown], _SHOWN)
            crops = [typical_crop(*of, part) for of in zip(pictures, label_maps[shown] == part, strict=True)]
            agreement = (
                _agreement(looks, members) if looks is not None else f"cosine\n{cosine[members, part].mean():.2f}"
            )
            rows.append((f"[{part},{variant}] {count}×\n{agreement}", crops))
        sheets.append((heading, rows))
    return figures.variants_figure(sheets, _CROPS)


def draw_worst(
    records: pd.DataFrame, codes: pd.DataFrame, part_masks: Path, part_names: dict[int, str], stages: Stages
) -> Figure:
    """The pictures with the fewest patches of foreground, of the others those with most parts missing, and of the rest
    those with the least typical parts."""
    label_maps = load_label_maps(part_masks)
    code, cosine = np.stack(codes["code"])[:, 1:], np.stack(codes["cosine"])[:, 1:]
    foreground, missing = (label_maps > 0).mean((1, 2)), (code < 0).sum(1)
    lowest = np.where(code < 0, np.inf, cosine).min(1)
    names = np.array(list(part_names.values())[1:])

    fresh = np.ones(len(records), bool)  # no picture is shown twice

    def first(score: np.ndarray, among: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(among & fresh)
        rows = rows[np.argsort(score[rows], kind="stable")][:_WORST]
        fresh[rows] = False
        return rows

    def shown(rows: np.ndarray, tell: Callable[[int], str]) -> list[tuple[np.ndarray, np.ndarray, str]]:
        pictures = load_pictures([stages.root / records["path"].iloc[row] for row in rows], _LARGE)
        return [(picture, label_maps[row], tell(row)) for picture, row in zip(pictures, rows, strict=True)]

    def least(row: int) -> str:
        part = int(np.where(code[row] < 0, np.inf, cosine[row]).argmin())
        return f"{names[part]} [{part + 1},{code[row, part]}], cosine {cosine[row, part]:.2f}"

    kinds = [
        (
            "The smallest foreground, as a share of the picture",
            first(foreground, fresh),
            lambda row: f"{foreground[row]:.0%}",
        ),
        (
            f"Most parts missing; in all, {(missing > 0).sum()} of {len(missing)} pictures lack one or more",
            first(-missing, missing > 0),
            lambda row: "no " + ", ".join(names[code[row] < 0]),
        ),
        ("The part that is least like its variant", first(lowest, np.isfinite(lowest)), least),
    ]
    rows = [(heading, shown(rows, tell)) for heading, rows, tell in kinds if len(rows)]
    return figures.worst_figure(rows, _headings(part_names))


def _looks(records: pd.DataFrame, label: str | None) -> pd.Series | None:
    """The true look of a label in each picture; None where it is not known."""
    return records[label] if "world" in records and label else None


def _agreement(looks: pd.Series, members: np.ndarray) -> str:
    """The commonest look of some pictures, and how many of them have it: plain green, 97%."""
    counts = looks.iloc[members].value_counts()
    return f"{counts.index[0]}\n{counts.iloc[0] / len(members):.0%}"


def _headings(part_names: dict[int, str]) -> list[str]:
    """The parts' numbers, as tokens have them, and names."""
    return [name if name == f"part {m}" else f"{m} {name}" for m, name in part_names.items()]
