"""Pictures on disk to the posterior of both flips, beside one picture at a time."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from measure import Result, side_by_side
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.model.base import load_base
from partcraft_kedro.training.cache import write_latents
from subjects.world import SIZE, World


def measure(world: World, rounds: int) -> tuple[list[Result], dict]:
    vae = load_base("tiny").vae

    @torch.inference_mode()
    def one_by_one() -> int:
        for path in world.paths:
            pixels = load_pictures([path], SIZE)
            for flipped in (pixels, np.ascontiguousarray(pixels[:, :, ::-1])):
                vae.encode(to_vae(flipped)).latent_dist.mean.half()
        return len(world.paths)

    def ours() -> int:
        with tempfile.TemporaryDirectory() as folder:
            write_latents(vae, world.paths, SIZE, Path(folder))
        return len(world.paths)

    size = sum(shard.stat().st_size for shard in (world.folder / "latents").glob("*.safetensors"))
    facts = {"latent cache, bytes a picture": round(size / len(world.paths))}
    return side_by_side("latent cache", "picture", {"one at a time": one_by_one, "ours": ours}, rounds=rounds), facts
