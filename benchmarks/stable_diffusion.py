"""Stable Diffusion's architecture, 1.5 or another, with random weights, and the whole chain on it.

    python benchmarks/stable_diffusion.py --configs CONFIGS --cub CUB_200_2011 --features DINOV2 --width 1

CONFIGS: the folder of Stable Diffusion 1.5, 2.1 or XL without its weights: model_index.json, unet/config.json,
tokenizer/ …
Runs `kedro run --env=cub` on eight photographs: two training steps, two pictures. Prints seconds and peak memory.
At full width: eight minutes on two cores, and 10 GiB.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def build(configs: Path, folder: Path, width: float) -> None:
    """Write a pipeline with random weights, in diffusers' layout, its channels `width` times the originals.

    Block types, layer names, resolutions, tokenizer and scheduler are those of `configs`.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def scaled(channels: int) -> int:
        return max(32, int(channels * width) // 32 * 32)  # groups of 32 are normalised together

    def config_of(component: str) -> dict:
        return json.loads((configs / component / "config.json").read_text())

    shutil.copytree(configs, folder)
    index = json.loads((configs / "model_index.json").read_text())
    index["safety_checker"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    readers = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}  # SDXL has both
    texts = {name: config_of(name) for name in readers if (configs / name).exists()}
    torch.manual_seed(0)
    for component, network in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        config = config_of(component)
        config["block_out_channels"] = [scaled(channels) for channels in config["block_out_channels"]]
        if component == "unet":
            config["cross_attention_dim"] = sum(scaled(text["hidden_size"]) for text in texts.values())
            if "text_encoder_2" in texts:
                pooled = scaled(texts["text_encoder_2"]["projection_dim"])
                config["projection_class_embeddings_input_dim"] = pooled + 6 * config["addition_time_embed_dim"]
                heads = [max(1, int(heads * width)) for heads in config["attention_head_dim"]]
                config |= {"attention_head_dim": heads}
        network.from_config(config).half().save_pretrained(folder / component)
    for name, text in texts.items():
        words = scaled(text["hidden_size"])
        text |= {
            "hidden_size": words,
            "intermediate_size": 4 * words,
            "num_hidden_layers": max(2, int(text["num_hidden_layers"] * width)),
            "num_attention_heads": words // 64 or 1,
            "projection_dim": words,
        }
        readers[name](CLIPTextConfig(**text)).half().save_pretrained(folder / name)


def some_of_cub(cub: Path, folder: Path, pictures: int) -> None:
    """A CUB-200-2011 of evenly chosen pictures, in its own layout."""
    lines = (cub / "images.txt").read_text().splitlines()
    chosen = lines[:: len(lines) // pictures][:pictures]
    numbers = {line.split()[0] for line in chosen}
    (folder / "parts").mkdir(parents=True)
    for name in ("classes.txt", "parts/parts.txt"):
        shutil.copy(cub / name, folder / name)
    tables = ("images", "image_class_labels", "train_test_split", "bounding_boxes", "parts/part_locs")
    for name in tables:
        kept = [row for row in (cub / f"{name}.txt").read_text().splitlines() if row.split()[0] in numbers]
        if name == "train_test_split":  # four of each, whatever the draw
            kept = [f"{row.split()[0]} {int(i % 2 == 0)}" for i, row in enumerate(kept)]
        (folder / f"{name}.txt").write_text("\n".join(kept) + "\n")
    for line in chosen:
        path = folder / "images" / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cub / "images" / line.split()[1], path)


def run_chain(
    model: Path, cub: Path, features: Path, data: Path, *, sampling_steps: int, size: int | None
) -> subprocess.CompletedProcess:
    """`kedro run --env=cub`, everything: two training steps, two pictures. size: of pictures; None: the model's."""
    options = {
        "base.model": model,
        "base.size": "null" if size is None else size,
        "features.model": features,
        "images.folder": cub,
        "parts.variants": 4,
        "train.steps": 2,
        "generate.reconstructions": 2,
        "generate.compositions": 0,
        "generate.sampling.steps": sampling_steps,
    }
    command = [sys.executable, "-m", "kedro", "run", "--env=cub", "--params"]
    command.append(",".join(f"{name}={value}" for name, value in options.items()))
    tracking = f"sqlite:///{data.parent / 'mlflow.db'}"
    environment = os.environ | {"PARTCRAFT_DATA": str(data), "MLFLOW_TRACKING_URI": tracking}
    return subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("configs", "cub", "features"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--width", type=float, default=1.0, help="share of the original channels (default: 1)")
    parser.add_argument("--sampling-steps", type=int, default=2, help="steps of each picture (default: 2)")
    parser.add_argument("--size", type=int, help="of the pictures in pixels (default: the model's)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        build(arguments.configs, folder / "model", arguments.width)
        built = time.perf_counter()
        some_of_cub(arguments.cub, folder / "CUB_200_2011", 8)
        result = run_chain(
            folder / "model", folder / "CUB_200_2011", arguments.features.absolute(), folder / "data",
            sampling_steps=arguments.sampling_steps, size=arguments.size,
        )  # fmt: skip
        print(result.stdout)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"model built in {built - begin:.0f} s, chain in {time.perf_counter() - built:.0f} s, {peak:.1f} GiB")
        sys.exit(result.returncode)


if __name__ == "__main__":
    main()
