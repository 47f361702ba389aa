"""What the stage of evaluation computes."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from partcraft_kedro.compute import Engine, Work
from partcraft_kedro.drawn.judge import Judge
from partcraft_kedro.drawn.truth import Truth
from partcraft_kedro.evaluation import distances, metrics, scores
from partcraft_kedro.evaluation.part_identity import PartIdentity, score_identity
from partcraft_kedro.evaluation.swaps import Swaps
from partcraft_kedro.files import write_file, write_json
from partcraft_kedro.model.base import load_base, picture_size
from partcraft_kedro.options import BaseModelOptions, EvaluateOptions, FeaturesOptions
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.stages import StageRef

_SHARD = 256  # pictures whose scores are a file, a multiple of `scores.BATCH`


def scoring(
    place: StageRef,
    *,
    plan: pd.DataFrame,
    pictures: StageRef,
    records: pd.DataFrame,
    part_predictor: Path,
    part_masks: Path,
    matching: dict[str, str],
    judge: Path,
    base: BaseModelOptions,
    features: FeaturesOptions,
    evaluate: EvaluateOptions,
    engine: Engine,
) -> None:
    """Writes `scores.parquet`, a row for each picture, and `summary.json`: the score table's rows, of pictures and of
    parts, leakage by the part that was swapped, and how many entries EMR leaves out."""
    shards, summary = place.folder / "shards", place.folder / "summary.json"
    if summary.exists():  # of an attempt that was broken off when all was done but this
        shutil.rmtree(shards, ignore_errors=True)
        return
    judge_path = engine.shared(judge, shards) / "judge.safetensors"
    load_truth = None
    if "world" in records:
        parts = {int(found): true for found, true in matching.items()}
        load_truth = partial(Truth.load, records["world"].iloc[0], judge_path, parts)
    open_scoring = partial(
        _open_scoring,
        base=base,
        part_predictor=part_predictor,
        part_masks=part_masks,
        load_truth=load_truth,
        clustered=features.model,
        evaluate=evaluate,
        records=records.set_index("id"),
        pictures=pictures.folder,
        root=engine.root,
        folder=shards / "scores",
    )
    engine.map(open_scoring, _pieces(plan), 1, "score pictures")
    scored = scores.Scored.of_tables(plan, place.tables("shards/scores/scores-*.parquet"))
    rows = scored.table
    result = scores.summarise(rows, evaluate.bootstrap, evaluate.seed)
    of_parts = scores.summarise_parts(scored, evaluate.bootstrap, evaluate.seed)
    swaps = Swaps.of_plan(plan, len(plan["code"].iloc[0]))
    leakage, counts = swaps.leakage_by_swap(scored.of_parts["leakage"])
    with Image.open(pictures.folder / f"{plan['id'].iloc[0]}.png") as picture:
        size = picture.width
    if load_truth:
        load_embedders = {"distance": partial(_load_judge, judge_path)}
    else:
        load_embedders = {"distance": partial(distances.dinov2_embedder, features.model, base.device)}
    if evaluate.inception:
        load_embedders["fid"] = partial(distances.inception_embedder, evaluate.inception, base.device)
    real, reference = distances.reference_of(records["path"], evaluate.seed)
    sets = {"real": real, "made": rows["path"][rows["kind"] == "reconstruction"]}
    for task, load_embedder in load_embedders.items():
        for name, paths in sets.items():
            open_embedding = partial(_open_embedding, load_embedder, size, engine.root, shards / task / name)
            engine.map(open_embedding, paths, distances.SHARD, "embed pictures")
        embedded = [distances.load_embedded(shards / task / name) for name in sets]
        (features_of_real, name_of_features), (features_of_made, _) = embedded
        compared = distances.compare(features_of_real, features_of_made, features=name_of_features, reference=reference)
        result += [{"task": task, "measure": measure, **of} for measure, of in compared.items()]
    absent = metrics.both_absent(np.stack(rows["code"]), np.stack(rows["found"]))
    write_file(place.folder / "scores.parquet", rows.to_parquet)
    shares = leakage.astype(object)
    shares[counts == 0] = None  # JSON has no NaN
    by_swap = {"share": shares.tolist(), "pictures": counts.tolist()}
    told = {"scores": result, "parts": of_parts, "leakage_by_swap": by_swap, "entries_absent_in_both": absent}
    write_json(summary, told)
    shutil.rmtree(shards)


def _pieces(plan: pd.DataFrame) -> list[pd.DataFrame]:
    """The plan in pieces of about `_SHARD` rows: those of one noise together, since they are compared."""
    chains = pd.factorize(plan["noise"])[0]
    sizes = np.bincount(chains)
    pieces = (np.cumsum(sizes) - sizes) // _SHARD
    return [plan[pieces[chains] == piece] for piece in np.unique(pieces)]


def _open_scoring(
    *,
    base: BaseModelOptions,
    part_predictor: Path,
    part_masks: Path,
    load_truth: Callable[[], Truth] | None,
    clustered: str,
    evaluate: EvaluateOptions,
    records: pd.DataFrame,
    pictures: Path,
    root: Path,
    folder: Path,
) -> Work:
    pipeline = load_base(base.model, base.device, base.size, base.config)
    predictor = PartPredictor.load(part_predictor, base.device)
    label_maps = load_label_maps(part_masks)
    known = {"predictor": predictor, "vae": pipeline.vae, "size": picture_size(pipeline), "seed": evaluate.seed}
    truth = load_truth() if load_truth else None
    identity = None
    if evaluate.part_identity:
        identity = PartIdentity(
            evaluate.part_identity,
            clustered=clustered,
            part_count=predictor.part_count,
            min_patches=predictor.min_patches,
            device=base.device,
        )

    def work(pieces: list[pd.DataFrame], first: int) -> None:
        for number, planned in enumerate(pieces, start=first):
            shard = folder / f"scores-{number:05d}.parquet"
            if shard.exists():
                continue
            scored = scores.score_plan(planned, records, label_maps, pictures, root, truth=truth, **known)
            if identity:
                alike = score_identity(identity, scored.table, records, root, **known)
                scored = scored.join(scored.table[[]], alike)
            write_file(shard, scored.as_table(planned).to_parquet)

    return work


def _load_judge(path: Path) -> distances.Embedder:
    return distances.judge_embedder(Judge.load(path))


def _open_embedding(load_embedder: Callable[[], distances.Embedder], size: int, root: Path, folder: Path) -> Work:
    embedder = load_embedder()

    def work(paths: pd.Series, first: int) -> None:
        distances.write_embedded(embedder, [root / path for path in paths], size, folder, first)

    return work
