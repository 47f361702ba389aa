"""What the making of tiny computes. Every training checkpoints and goes on where it was killed."""

from pathlib import Path
from typing import Any

from partcraft_kedro.devices import compute_type, resolve_device
from partcraft_kedro.files import write_folder
from partcraft_kedro.options import BaseModelOptions, PretrainOptions
from partcraft_kedro.pretraining.autoencoder import train_autoencoder, train_decoder
from partcraft_kedro.pretraining.fitting import seconds_spent
from partcraft_kedro.pretraining.observers import train_judge, train_vit
from partcraft_kedro.pretraining.pictures import draw_pretraining_pictures
from partcraft_kedro.pretraining.text_to_image import Schooling, train_base
from partcraft_kedro.pretraining.tiny import describe_device, measure_tiny, save_tiny, write_card
from partcraft_kedro.stages import StageRef


def pretraining(place: StageRef, *, pretrain: PretrainOptions, base: BaseModelOptions) -> dict[str, Any]:
    """Trains the four networks of tiny in turn and writes `tiny/`; returns what was measured."""
    device = resolve_device(base.device)
    shared: dict[str, Any] = {"seed": pretrain.seed, "device": device}
    pictures = draw_pretraining_pictures(place.folder / "pictures", pretrain.pictures, pretrain.seed)
    crops = {"batch_size": 16, **shared}
    vae = train_autoencoder(pictures, place.folder / "vae", steps=pretrain.autoencoder_steps, **crops)
    schooling = Schooling(
        text_steps=pretrain.text_steps,
        coarse=(pretrain.coarse_steps, pretrain.coarse_batch),
        fine=(pretrain.fine_steps, pretrain.fine_batch),
        plain=(pretrain.plain_steps, pretrain.fine_batch),
        precision=compute_type(base.precision, device),
        **shared,
    )
    pipeline = train_base(pictures, vae, place.folder / "base", schooling)
    observers = {"steps": pretrain.observer_steps, "batch_size": 32, **shared}
    vit = train_vit(pictures, place.folder / "vit", **observers)
    judge = train_judge(pictures, place.folder / "judge", **observers)
    train_decoder(
        vae,
        pictures,
        place.folder / "decoder",
        steps=pretrain.decoder_steps,
        batch_size=crops["batch_size"],
        seed=pretrain.seed,
    )
    for network in (pipeline, vit, judge):
        network.to("cpu")
    measured = measure_tiny(pipeline, judge, pretrain.seed)
    trained = {
        "VAE": f"{pretrain.autoencoder_steps} steps of 16 crops, then {pretrain.decoder_steps} of the decoder",
        "vision transformer, judge": f"{pretrain.observer_steps} steps of 32 pictures each",
        "text encoder": f"{pretrain.text_steps} steps of 64 captions alone, then with the U-Net",
        "U-Net": f"{pretrain.coarse_steps} steps of {pretrain.coarse_batch} captioned pictures at half the "
        f"resolution, then {pretrain.fine_steps} of {pretrain.fine_batch} at full resolution and "
        f"{pretrain.plain_steps} with all locations weighing the same",
    }

    spent = f"{seconds_spent(place.folder) / 60:.0f} minutes on {describe_device(device)}"

    def write(partial: Path) -> None:
        save_tiny(pipeline, vit, judge, partial, pretrain.seed)
        write_card(partial, measured, trained, spent=spent, fingerprint=place.fingerprint)

    write_folder(place.folder / "tiny", write)
    return measured
