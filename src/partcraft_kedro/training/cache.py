"""What the training step needs of each picture, computed once, in both flips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from partcraft_kedro.images.records import load_pictures
from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.stages import write_file

_SHARD = 32  # pictures a file and a forward pass


@dataclass(frozen=True)
class TrainingCache:
    """Everything about n training pictures; index 1 of `flip` is the mirrored picture.

    mean, std: of the VAE's posterior, unscaled, (flip, n, channel, height, width) float16;
    label_maps: (flip, n, grid, grid) uint8; codes: (n, M+1) int64.
    """

    mean: torch.Tensor
    std: torch.Tensor
    label_maps: torch.Tensor
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def load(cls, folder: Path, label_maps: np.ndarray, codes: Sequence[np.ndarray]) -> "TrainingCache":
        """Read what `write_latents` wrote. label_maps: (n, grid, grid) uint8; codes: n of (M+1,)."""
        shards = [load_file(shard) for shard in sorted(folder.glob("latents-*.safetensors"))]
        maps = torch.from_numpy(label_maps)
        return cls(
            mean=torch.cat([shard["mean"] for shard in shards], dim=1),
            std=torch.cat([shard["std"] for shard in shards], dim=1),
            label_maps=torch.stack([maps, maps.flip(-1)]),
            codes=np.stack(codes),
        )


@torch.inference_mode()
def write_latents(vae: AutoencoderKL, paths: Sequence[Path], size: int, folder: Path) -> None:
    """Encode pictures in both flips, in shards; those that are there are kept."""
    for start in tqdm(range(0, len(paths), _SHARD), desc="cache latents", unit="shard"):
        shard = folder / f"latents-{start:07d}.safetensors"
        if shard.exists():
            continue
        pictures = load_pictures(paths[start : start + _SHARD], size)
        mean, std = [], []
        for flipped in (pictures, np.ascontiguousarray(pictures[:, :, ::-1])):
            posterior = vae.encode(to_vae(flipped).to(vae.device)).latent_dist
            mean.append(posterior.mean.half().cpu())
            std.append(posterior.std.half().cpu())
        tensors = {"mean": torch.stack(mean).contiguous(), "std": torch.stack(std).contiguous()}
        write_file(shard, lambda partial, tensors=tensors: save_file(tensors, partial))
