"""Making tiny: draw pictures, then train VAE, observers, base, and put them together.

Every training checkpoints and goes on where it was killed.
"""

from pathlib import Path

from partcraft_kedro.options import DataOptions, PretrainOptions
from partcraft_kedro.stages import Stage, write_folder


def train_tiny(pretrain: PretrainOptions, data: DataOptions) -> Path:
    """Train the four networks of tiny in turn; returns the folder with the finished model."""
    with Stage(
        data.folder / "06_models" / "tiny", "pretraining", version=2, options=pretrain.model_dump(), inputs={}
    ) as stage:
        tiny = stage.folder / "tiny"
        if not stage.finished:
            from partcraft_kedro.pretraining.autoencoder import train_autoencoder, train_decoder
            from partcraft_kedro.pretraining.base import train_base
            from partcraft_kedro.pretraining.observers import train_judge, train_vit
            from partcraft_kedro.pretraining.pictures import draw_pretraining_pictures
            from partcraft_kedro.pretraining.tiny import measure_tiny, save_tiny, write_card

            seed = pretrain.seed
            pictures = draw_pretraining_pictures(stage.folder / "pictures", pretrain.pictures, seed, pretrain.species)
            vae = train_autoencoder(
                pictures, stage.folder / "vae", steps=pretrain.autoencoder_steps, batch_size=12, seed=seed
            )
            observers = {"steps": pretrain.observer_steps, "batch_size": 32, "seed": seed}
            vit = train_vit(pictures, stage.folder / "vit", **observers)
            judge = train_judge(pictures, stage.folder / "judge", **observers)
            pipeline = train_base(
                pictures,
                vae,
                stage.folder / "base",
                text_steps=pretrain.text_steps,
                coarse_steps=pretrain.coarse_steps,
                fine_steps=pretrain.fine_steps,
                seed=seed,
            )
            of_decoder = stage.folder / "decoder"
            train_decoder(vae, pictures, of_decoder, steps=pretrain.decoder_steps, batch_size=12, seed=seed)
            measured = measure_tiny(pipeline, judge, seed)
            trained = {
                "VAE": f"{pretrain.autoencoder_steps} steps of 12 crops, then {pretrain.decoder_steps} of the decoder",
                "vision transformer, judge": f"{pretrain.observer_steps} steps of 32 pictures each",
                "text encoder": f"{pretrain.text_steps} steps of 64 captions alone, then with the U-Net",
                "U-Net": f"{pretrain.coarse_steps} steps of 32 captioned pictures at half the resolution, then "
                f"{pretrain.fine_steps} of 8 at full resolution",
            }

            def write(partial: Path) -> None:
                save_tiny(pipeline, vit, judge, partial)
                write_card(partial, measured, trained)

            write_folder(tiny, write)
            stage.finish(measured)
    return tiny
