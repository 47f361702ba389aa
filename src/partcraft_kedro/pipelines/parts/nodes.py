"""Part discovery on the training pictures, then masks and codes of all pictures, and how good they are."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.images.crops import typical_crop
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.options import EvaluateOptions, PartsOptions
from partcraft_kedro.parts import figures, names
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import Stage, StageRef, Stages

_WORK = "partcraft_kedro.pipelines.parts.work"
DISCOVERY = Stage("discovery", "05_model_input", version=3, work=f"{_WORK}.discovery")
LABELLING = Stage("labels", "05_model_input", version=3, work=f"{_WORK}.labelling")
SCORING = Stage("part_scores", "05_model_input", version=1, work=f"{_WORK}.scoring")
_SHOWN = 128  # pixels of a picture in a figure
_VARIANTS, _VARIANTS_OF_MANY = 6, 4  # shown of each part, of six parts at most and of more
_CROPS = 5  # shown of each variant


def discover_parts(features: StageRef, records: pd.DataFrame, parts: PartsOptions, stages: Stages) -> Path:
    """Fit the three tiers of centroids; returns the part predictor's folder."""
    found = stages.run(DISCOVERY, {"features": features, "records": records, "parts": parts})
    return found.folder / "part_predictor"


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
    pictures = load_pictures([stages.root / path for path in shown["path"]], _SHOWN)
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
    """For each part its commonest variants, each by crops of the pictures that are nearest to its centroid."""
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
            nearest = members[np.argsort(-cosine[members, part], kind="stable")][:_CROPS]
            pictures = load_pictures([stages.root / records["path"].iloc[row] for row in nearest], 2 * _SHOWN)
            crops = [typical_crop(*shown, part) for shown in zip(pictures, label_maps[nearest] == part, strict=True)]
            agreement = (
                _agreement(looks, members) if looks is not None else f"cosine\n{cosine[members, part].mean():.2f}"
            )
            rows.append((f"[{part},{variant}] {count}×\n{agreement}", crops))
        sheets.append((heading, rows))
    return figures.variants_figure(sheets, _CROPS)


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
