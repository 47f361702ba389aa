"""What the training step needs of each picture, computed once, in both flips."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.files import read_file, write_file
from partcraft_kedro.images.decoding import load_ahead
from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.passes import as_many_as_fit

SHARD = 32  # pictures a file
_BATCH = 4  # pictures given to the VAE at once, where it does not take one by one: more are slower on a CPU


@dataclass(frozen=True)
class TrainingCache:
    """Everything about n training pictures; index 1 of `flip` is the mirrored picture.

    mean, std: of the VAE's posterior, unscaled, shards of `shard` pictures, each (flip, shard, channel, height, width)
    float16, mapped from disk: only what a step reads is brought into memory.
    label_maps: (flip, n, grid, grid) uint8; codes: (n, M+1) int64.
    """

    mean: list[torch.Tensor]
    std: list[torch.Tensor]
    label_maps: torch.Tensor
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def load(cls, folder: Path, label_maps: np.ndarray, codes: Sequence[np.ndarray]) -> "TrainingCache":
        """Map what `write_latents` wrote. label_maps: (n, grid, grid) uint8; codes: n of (M+1,)."""
        shards = [read_file(shard, load_file) for shard in sorted(folder.glob("latents-*.safetensors"))]
        maps = torch.from_numpy(label_maps)
        return cls(
            mean=[shard["mean"] for shard in shards],
            std=[shard["std"] for shard in shards],
            label_maps=torch.stack([maps, maps.flip(-1)]),
            codes=np.stack(codes),
        )

    def posterior(self, flips: Iterable[int], rows: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of some pictures, each (batch, channel, height, width) float32."""
        size = self.mean[0].shape[1]
        places = [(flip, row // size, row % size) for flip, row in zip(flips, rows, strict=True)]
        mean, std = (
            torch.stack([shards[shard][flip, at] for flip, shard, at in places]).float()
            for shards in (self.mean, self.std)
        )
        return mean, std


@torch.inference_mode()
def write_latents(vae: AutoencoderKL, paths: Sequence[Path], size: int, folder: Path, first: int = 0) -> None:
    """Encode pictures in both flips, in shards; those that are there are kept.

    first: the number of the first picture, if these are some of all, a multiple of `SHARD`.
    Raises UserError if one is encoded to values beyond float16's, or if memory does not hold one picture.
    """
    starts = range(0, len(paths), SHARD)
    shards = {start: folder / f"latents-{first + start:07d}.safetensors" for start in starts}
    missing = {start: shard for start, shard in shards.items() if not shard.exists()}
    decoded = load_ahead([paths[start : start + SHARD] for start in missing], size)
    progress = tqdm(missing.values(), total=len(shards), initial=len(shards) - len(missing), desc="cache latents")
    at_once = _BATCH
    for shard, pictures in zip(progress, decoded, strict=True):
        mean, std = [], []
        for flipped in (pictures, np.ascontiguousarray(pictures[:, :, ::-1])):
            encode = partial(_encode, vae, to_vae(flipped))
            (of_mean, of_std), at_once = as_many_as_fit(encode, at_once, "encoding pictures", "give base.device=cpu")
            mean.append(of_mean)
            std.append(of_std)
        if not all(half.isfinite().all() for half in [*mean, *std]):
            raise UserError(
                "The VAE of base.model gives latents that are no finite numbers in float16: give another model."
            )
        tensors = {"mean": torch.stack(mean).contiguous(), "std": torch.stack(std).contiguous()}
        write_file(shard, partial(save_file, tensors))


def _encode(vae: AutoencoderKL, pixels: torch.Tensor, at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the posterior, in float16 on the CPU. pixels: (n, 3, h, w) in -1..1."""
    posteriors = [vae.encode(batch.to(vae.device)).latent_dist for batch in pixels.split(at_once)]
    mean = torch.cat([posterior.mean.half().cpu() for posterior in posteriors])
    return mean, torch.cat([posterior.std.half().cpu() for posterior in posteriors])
