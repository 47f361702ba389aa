"""Training: pictures, prompts and masks to an adapter."""

from pathlib import Path

import pandas as pd

from partcraft_kedro import tracking
from partcraft_kedro.assets import model_fingerprint
from partcraft_kedro.evaluation.measures import names_with
from partcraft_kedro.options import BaseModelOptions, DataOptions, GenerateOptions, TrainOptions
from partcraft_kedro.stages import Stage, fingerprint_of, read_file, write_file, write_folder

# Options that change nothing of the adapter but its rounding, and the name of what the others are.
_SILENT = {
    *("method", "log_every", "checkpoint_every", "sample_every", "micro_batch", "gradient_checkpointing", "compile")
}
_SAMPLES = 8  # pictures sampled while training


def cache_latents(records: pd.DataFrame, base: BaseModelOptions, data: DataOptions) -> dict:
    """Encode the training pictures with the VAE, in both flips; returns where, and the fingerprint."""
    with Stage(
        data.layer("05_model_input"),
        "latents",
        version=1,
        options={},
        inputs={
            "records": fingerprint_of(records),
            "base": model_fingerprint(base.model, "base", "base.model", data.digests),
        },
    ) as stage:
        if not stage.finished:
            from partcraft_kedro.model.base import load_base, picture_size
            from partcraft_kedro.training.cache import write_latents

            pipeline = load_base(base.model, base.device)
            training = records[records["split"] == "train"]
            paths = [data.folder / path for path in training["path"]]
            write_latents(pipeline.vae, paths, picture_size(pipeline), stage.folder)
            stage.finish({"pictures": len(paths)})
    return {"folder": stage.folder.relative_to(data.folder).as_posix(), "fingerprint": stage.fingerprint}


def train_adapter(
    latents: dict,
    prompts: pd.DataFrame,
    records: pd.DataFrame,
    part_masks: Path,
    part_predictor: Path,
    base: BaseModelOptions,
    options: TrainOptions,
    generate: GenerateOptions,
    data: DataOptions,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Train, or go on, or find it done; returns the adapter's folder, the losses, and a table of the pictures sampled
    on the way, always of the same prompts and noise: step, id, the measures of codes, path, and source_path, the real
    picture."""
    with Stage(
        data.layer("06_models"),
        "training",
        version=5,
        options=options.model_dump(exclude=_SILENT)
        | {"precision": base.precision, "sampling": generate.sampling.model_dump(exclude={"batch_size"})},
        inputs={
            "latents": latents["fingerprint"],
            "prompts": fingerprint_of(prompts),
            "part_masks": fingerprint_of(part_masks),
            "part_predictor": fingerprint_of(part_predictor),
        },
    ) as stage:
        folder, losses = stage.folder / "adapter", stage.folder / "losses.parquet"
        # Its key holds the number of steps: nothing will ever go on from it, and it may have gigabytes.
        checkpoint = stage.folder / "checkpoint.safetensors"
        if stage.finished:
            checkpoint.unlink(missing_ok=True)  # of a run that was killed when all was done but this
            history = read_file(losses, pd.read_parquet)
            tracking.log_curve(history)
            _log_samples(stage, data)
            return folder, history, _samples(stage)

        import numpy as np
        from safetensors.numpy import load_file

        from partcraft_kedro.evaluation.scores import score_codes
        from partcraft_kedro.generation.sampling import sample_pictures, to_images
        from partcraft_kedro.model.partcraft import PartCraft
        from partcraft_kedro.parts.predictor import PartPredictor
        from partcraft_kedro.training.cache import TrainingCache
        from partcraft_kedro.training.loop import train

        predictor = PartPredictor.load(part_predictor, base.device)
        training = (prompts["split"] == "train").to_numpy()
        label_maps = load_file(part_masks / "masks.safetensors")["label_maps"]
        codes = list(prompts["code"][training])
        cache = TrainingCache.load(data.folder / latents["folder"], label_maps[training], codes)
        model = PartCraft.create(
            base.model,
            base.device,
            base.precision,
            variants=[len(variants) for variants in predictor.variants],
            unet=options.unet,
            rank=options.rank,
            lora_layers=options.lora_layers,
            bottleneck_layers=options.bottleneck_layers,
            centroids=predictor.variants if options.token_start == "centroids" else None,
            seed=options.seed,
        )
        shown = prompts[training].iloc[:: max(1, training.sum() // _SAMPLES)][:_SAMPLES]
        real = records.set_index("id").loc[shown["id"], "path"]

        def sample(step: int, model: PartCraft) -> None:
            at_step = stage.folder / "samples" / f"step_{step:06d}"
            if at_step.with_suffix(".parquet").exists():  # of an attempt that was broken off
                return
            pictures = sample_pictures(model, list(shown["prompt"]), list(shown["id"]), generate.sampling, options.seed)
            images = to_images(pictures)
            paths = [at_step / f"{name}.png" for name in shown["id"]]
            for path, image in zip(paths, images, strict=True):
                write_file(path, image.save)
            scores = score_codes(predictor, np.stack(shown["code"]), np.stack([np.asarray(image) for image in images]))
            table = pd.DataFrame({"step": step, "id": shown["id"].to_numpy(), **scores[names_with(of_codes=True)]})
            table["path"] = [path.relative_to(data.folder).as_posix() for path in paths]
            table["source_path"] = real.to_numpy()
            write_file(at_step.with_suffix(".parquet"), table.to_parquet)
            tracking.log_samples(table, data.folder)

        _log_samples(stage, data)  # of an attempt that was broken off

        tell = {"on_log": tracking.log_step, "on_sample": sample}
        history = train(model, cache, options, stage.folder, stage.fingerprint, **tell)
        facts = {**options.model_dump(exclude={"method"}), "fingerprint": stage.fingerprint, "pictures": len(cache)}
        write_folder(folder, lambda partial: model.save_adapter(partial, facts))
        write_file(losses, history.to_parquet)
        stage.finish()
        checkpoint.unlink(missing_ok=True)
        return folder, history, _samples(stage)


def _samples(stage: Stage) -> pd.DataFrame:
    columns = ["step", "id", *names_with(of_codes=True), "path", "source_path"]
    none = pd.DataFrame(columns=columns)  # where memory held not one
    tables = sorted(stage.folder.glob("samples/*.parquet"))
    return pd.concat([read_file(table, pd.read_parquet) for table in tables] or [none])


def _log_samples(stage: Stage, data: DataOptions) -> None:
    """Log the pictures that were sampled already."""
    for table in sorted(stage.folder.glob("samples/*.parquet")):
        tracking.log_samples(read_file(table, pd.read_parquet), data.folder)
