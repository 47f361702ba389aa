"""Training: pictures, prompts and masks to an adapter."""

from pathlib import Path

import pandas as pd

from partcraft_kedro import tracking
from partcraft_kedro.assets import model_fingerprint
from partcraft_kedro.options import BaseModelOptions, DataOptions, GenerateOptions, TrainOptions
from partcraft_kedro.stages import Stage, fingerprint_of, write_file, write_folder

# Options that change nothing of the adapter but its rounding.
_SILENT = {"log_every", "checkpoint_every", "sample_every", "micro_batch", "gradient_checkpointing", "compile"}


def cache_latents(records: pd.DataFrame, base: BaseModelOptions, data: DataOptions) -> dict:
    """Encode the training pictures with the VAE, in both flips; returns where, and the fingerprint."""
    stage = Stage(
        data.layer("05_model_input"),
        "latents",
        version=1,
        options={},
        inputs={
            "records": fingerprint_of(records),
            "base": model_fingerprint(base.model, "base", "base.model"),
        },
    )
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
    part_masks: Path,
    part_predictor: Path,
    base: BaseModelOptions,
    options: TrainOptions,
    generate: GenerateOptions,
    data: DataOptions,
) -> tuple[Path, pd.DataFrame]:
    """Train, or go on, or find it done; returns the adapter's folder and the losses."""
    stage = Stage(
        data.layer("06_models"),
        "training",
        version=2,
        options=options.model_dump(exclude=_SILENT) | {"precision": base.precision},
        inputs={
            "latents": latents["fingerprint"],
            "prompts": fingerprint_of(prompts),
            "part_masks": fingerprint_of(part_masks),
            "part_predictor": fingerprint_of(part_predictor),
        },
    )
    folder, losses = stage.folder / "adapter", stage.folder / "losses.parquet"
    if stage.finished:
        history = pd.read_parquet(losses)
        tracking.log_curve(history)
        return folder, history

    from safetensors.numpy import load_file

    from partcraft_kedro.generation.sampling import sample_pictures, to_images
    from partcraft_kedro.model.partcraft import PartCraft
    from partcraft_kedro.parts.predictor import PartPredictor
    from partcraft_kedro.training.cache import TrainingCache
    from partcraft_kedro.training.loop import train

    predictor = PartPredictor.load(part_predictor)
    training = (prompts["split"] == "train").to_numpy()
    label_maps = load_file(part_masks / "masks.safetensors")["label_maps"]
    cache = TrainingCache.load(data.folder / latents["folder"], label_maps[training], list(prompts["code"][training]))
    model = PartCraft.create(
        base.model,
        base.device,
        base.precision,
        variants=[len(variants) for variants in predictor.variants],
        rank=options.rank,
        lora_layers=options.lora_layers,
        bottleneck_layers=options.bottleneck_layers,
        seed=options.seed,
    )
    shown = prompts[training].iloc[:: max(1, training.sum() // 8)][:8]

    def sample(step: int, model: PartCraft) -> None:
        pictures = sample_pictures(model, list(shown["prompt"]), list(shown["id"]), generate.sampling, options.seed)
        path = stage.folder / "samples" / f"step_{step:06d}.png"
        write_file(path, tracking.side_by_side(to_images(pictures)).save)
        tracking.log_picture(path, "samples")

    history = train(model, cache, options, stage.folder, stage.fingerprint, on_log=tracking.log_step, on_sample=sample)
    facts = {**options.model_dump(), "fingerprint": stage.fingerprint, "pictures": len(cache)}
    write_folder(folder, lambda partial: model.save_adapter(partial, facts))
    write_file(losses, history.to_parquet)
    stage.finish()
    return folder, history
