"""What the stages of training compute."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from partcraft_kedro.compute import Engine, Work
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.measures import names_with
from partcraft_kedro.evaluation.scores import score_codes
from partcraft_kedro.files import link_folder, write_file, write_folder
from partcraft_kedro.generation.sampling import sample_pictures, to_images
from partcraft_kedro.model.base import load_base, picture_size
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import BaseModelOptions, SamplingOptions, TrainOptions
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.parts.sheet import PARTS, read_sheet, write_sheet
from partcraft_kedro.stages import StageRef
from partcraft_kedro.torchrun import together
from partcraft_kedro.training import loop
from partcraft_kedro.training.cache import SHARD, TrainingCache, write_latents
from partcraft_kedro.training.validation import Validation

_SAMPLES = 8  # pictures sampled while training
_HELD_OUT = 8  # pictures whose losses are measured while training


def caching(place: StageRef, *, records: pd.DataFrame, base: BaseModelOptions, engine: Engine) -> None:
    """Encodes the training pictures with the VAE, in both flips."""
    open_work = partial(_open_caching, base, engine.root, place.folder)
    paths = records["path"][records["split"] == "train"]
    engine.map(open_work, paths, SHARD, "cache latents")


def _open_caching(base: BaseModelOptions, root: Path, folder: Path) -> Work:
    pipeline = load_base(base.model, base.device, base.size, base.config)

    def work(paths: pd.Series, first: int) -> None:
        write_latents(pipeline.vae, [root / path for path in paths], picture_size(pipeline), folder, first)

    return work


def training(
    place: StageRef,
    *,
    latents: StageRef,
    prompts: pd.DataFrame,
    records: pd.DataFrame,
    part_masks: Path,
    part_predictor: Path,
    base: BaseModelOptions,
    train: TrainOptions,
    sampling: SamplingOptions,
    root: Path,
    on_log: Callable[[int, dict[str, float]], None],
    on_samples: Callable[[pd.DataFrame], None],
) -> None:
    """Writes `adapter/`, `losses.parquet`, and `samples/`, pictures sampled on the way with a table for each step.

    on_log: told the means of some steps; on_samples: the table of each step's samples, also of an attempt that was
    broken off.
    """
    checkpoint, losses = place.folder / "checkpoint.safetensors", place.folder / "losses.parquet"
    if losses.exists():  # of an attempt that was broken off when all was done but this
        checkpoint.unlink(missing_ok=True)
        return
    predictor = PartPredictor.load(part_predictor, base.device)
    of_split = (prompts["split"] == "train").to_numpy()
    label_maps = load_label_maps(part_masks)
    paths = records.set_index("id")["path"]
    shown = _some(prompts[of_split], _SAMPLES)
    real = paths[shown["id"]]
    held_out = _some(prompts[prompts["split"] == "test"], _HELD_OUT)

    def validation_of(model: PartCraft) -> Validation | None:
        if not len(held_out):
            return None
        files = [root / path for path in paths[held_out["id"]]]
        maps, codes = label_maps[held_out.index], list(held_out["code"])
        return Validation.of_pictures(model, files, maps, codes, train, place.folder / "validation")

    def sample(step: int, model: PartCraft) -> None:
        at_step = place.folder / "samples" / f"step_{step:06d}"
        if at_step.with_suffix(".parquet").exists():
            return
        images = to_images(sample_pictures(model, list(shown["prompt"]), list(shown["id"]), sampling, train.seed))
        paths = [at_step / f"{name}.png" for name in shown["id"]]
        for path, image in zip(paths, images, strict=True):
            write_file(path, image.save)
        scores = score_codes(predictor, np.stack(shown["code"]), np.stack([np.asarray(image) for image in images]))
        table = pd.DataFrame({"step": step, "id": shown["id"].to_numpy(), **scores[names_with(of_codes=True)]})
        table["path"] = [path.relative_to(root).as_posix() for path in paths]
        table["source_path"] = real.to_numpy()
        write_file(at_step.with_suffix(".parquet"), table.to_parquet)
        on_samples(table)

    for table in place.tables("samples/step_*.parquet"):
        on_samples(table)
    learn = partial(
        _learn,
        place,
        latents.folder,
        label_maps[of_split],
        list(prompts["code"][of_split]),
        predictor.variants,
        base,
        train,
    )
    model, history = together(learn, validation_of=validation_of, on_log=on_log, on_sample=sample)
    pictures = int(of_split.sum())
    facts = {**train.model_dump(exclude={"method"}), "fingerprint": place.fingerprint, "pictures": pictures}
    write_folder(place.folder / "adapter", lambda partial: model.save_adapter(partial, facts))
    write_file(losses, history.to_parquet)
    # The key holds the number of steps: nothing will ever go on from it, and it may have gigabytes.
    checkpoint.unlink(missing_ok=True)


def packing(
    place: StageRef,
    *,
    trained: StageRef,
    records: pd.DataFrame,
    part_masks: Path,
    part_predictor: Path,
    codes: pd.DataFrame,
    part_names: dict[int, str],
    root: Path,
) -> None:
    """Writes `adapter/`: the trained one, and in `parts/` the part predictor, the parts' names, and crops of their
    variants in the training pictures."""
    of_split = (records["split"] == "train").to_numpy()
    shown = codes.set_index("id").loc[records["id"][of_split]]

    def fill(partial: Path) -> None:
        link_folder(trained.folder / "adapter", partial)
        link_folder(part_predictor, partial / PARTS)
        write_sheet(
            partial / PARTS,
            list(part_names.values()),
            [len(of_part) for of_part in PartPredictor.load(part_predictor).variants],
            [root / path for path in records["path"][of_split]],
            np.stack(shown["code"]),
            np.stack(shown["cosine"]),
            load_label_maps(part_masks)[of_split],
        )
        card = (partial / "README.md").read_text(encoding="utf-8") + read_sheet(partial / PARTS).card()
        write_file(partial / "README.md", lambda path: path.write_text(card, encoding="utf-8"))  # and no linked one

    write_folder(place.folder / "adapter", fill)


def _some(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows, evenly spread over all."""
    return rows.iloc[:: max(1, len(rows) // count)][:count]


def _learn(
    place: StageRef,
    latents: Path,
    label_maps: np.ndarray,
    codes: list[np.ndarray],
    variants: list[torch.Tensor],
    base: BaseModelOptions,
    train: TrainOptions,
    *,
    validation_of: Callable[[PartCraft], Validation | None] = lambda model: None,
    **told: Callable[..., None],
) -> tuple[PartCraft, pd.DataFrame]:
    """What every rank does: returns the trained model and the logged means.

    latents: the folder of the training pictures' latents; validation_of, told: what `loop.train` is given on rank 0,
    `on_log` and `on_sample`.
    Raises UserError where the folders of data are not those of rank 0.
    """
    for folder in (place.folder, latents):
        if not folder.exists():
            raise UserError(f"There is no {folder}: let all hosts see the data folder of rank 0 under the same name.")
    cache = TrainingCache.load(latents, label_maps, codes)
    model = PartCraft.create(
        base.model,
        base.device,
        base.precision,
        size=base.size,
        config=base.config,
        variants=[len(of_part) for of_part in variants],
        unet=train.unet,
        rank=train.rank,
        lora_layers=train.lora_layers,
        bottleneck_layers=train.bottleneck_layers,
        centroids=variants if train.token_start == "centroids" else None,
        seed=train.seed,
    )
    validation = validation_of(model)
    return model, loop.train(model, cache, train, place.folder, place.fingerprint, validation=validation, **told)
