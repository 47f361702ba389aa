"""Does a generated part look like its source? Asked of an encoder that had no part in finding the parts.

EMR and CoSim reuse the clusters that supervised the training. Here the clusters say only where a part is.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from partcraft_kedro.devices import half_precision, resolve_device
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.scores import BATCH, random_others, through_vae
from partcraft_kedro.images.crops import crop_to
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.parts.predictor import PartPredictor, masks_of
from partcraft_kedro.weights import load_image_encoder, model_fingerprint

OPTION = "evaluate.part_identity"
_CROPS = 64  # embedded at once


class PartIdentity:
    """Cosines between a part of one picture and the same part of another, by a second encoder.

    model: an image model of transformers with a pooled output, safetensors, a local folder or a hub id: CLIP, whole
    or its vision tower alone, or another DINOv2; clustered: the model that found the parts, which it must not be.
    part_count: M; min_patches: a smaller part counts as absent, as in `PartPredictor`.
    Ceiling: the sources through the VAE and back; floor: other real pictures; either in the generated ones' place.
    Raises UserError if the model cannot be loaded, lacks weights or a pooled output, or found the parts.
    """

    def __init__(self, model: str, *, clustered: str, part_count: int, min_patches: int, device: str = "auto"):
        same = model_fingerprint(clustered, "feature_extractor", "features.model")
        if model_fingerprint(model, "feature_extractor", OPTION) == same:
            raise UserError(f"{OPTION}={model!r} is features.model, which found the parts: give another model.")
        network, self._processor = load_image_encoder(model, OPTION, "an image model")
        self.device = device = resolve_device(device)
        self._half = half_precision(device)
        tower = getattr(network, "vision_model", network)  # a whole CLIP has a text model beside it
        self._network = tower.to(device).eval().requires_grad_(False)
        self._labels, self._least_patches = part_count + 1, min_patches
        self._model = model
        self.width = self._forward([np.zeros((8, 8, 3), np.uint8)]).shape[1]
        self.name = f"{model}, {self.width} numbers"

    def compare(
        self, pictures: np.ndarray, label_maps: np.ndarray, sources: torch.Tensor, origins: np.ndarray
    ) -> np.ndarray:
        """Each part's cosine with its source's, (n, M+1) float32; NaN where the part is absent in either.

        pictures: (n, h, w, 3) uint8; label_maps: (n, grid, grid), 0 the background; sources: what `embed_parts` gave
        for the pictures they are from; origins: (n, M+1), the row of `sources` that each part is from.
        """
        theirs = sources[origins, np.arange(self._labels)]
        return F.cosine_similarity(self.embed_parts(pictures, label_maps), theirs, dim=-1).numpy()

    def embed_parts(self, pictures: np.ndarray, label_maps: np.ndarray) -> torch.Tensor:
        """Each part's embedding, (n, M+1, width), NaN where absent.

        Of the square around it with a patch of margin, so that of the background mostly the whole picture.
        """
        masks = masks_of(label_maps, self._labels - 1)
        shown = np.argwhere(masks.sum((2, 3)) >= self._least_patches)
        embedded = torch.full((len(pictures), self._labels, self.width), torch.nan)
        for start in range(0, len(shown), _CROPS):
            rows, labels = shown[start : start + _CROPS].T
            crops = [crop_to(pictures[i], masks[i, m]) for i, m in zip(rows, labels, strict=True)]
            embedded[rows, labels] = self._forward(crops)
        return embedded

    @torch.inference_mode()
    def _forward(self, crops: list[np.ndarray]) -> torch.Tensor:
        """Squares (s, s, 3) uint8 of any size → (n, width) float32 on the CPU.

        Raises UserError if the model has no pooled output.
        """
        inputs = self._processor(crops, input_data_format="channels_last", return_tensors="pt").pixel_values
        with torch.autocast(torch.device(self.device).type, self._half, enabled=self._half is not None):
            pooled = getattr(self._network(inputs.to(self.device)), "pooler_output", None)
        if pooled is None:
            raise UserError(f"{OPTION}={self._model!r} has no pooled output: give a model such as CLIP or DINOv2.")
        return pooled.flatten(1).float().cpu()


def score_identity(
    identity: PartIdentity,
    table: pd.DataFrame,
    records: pd.DataFrame,
    data_folder: Path,
    *,
    predictor: PartPredictor,
    vae: AutoencoderKL,
    size: int,
    seed: int,
) -> pd.DataFrame:
    """`part_identity`: the mean cosine of a picture's parts, background left out, with those of their sources.

    table: of `score_pictures`. Ceiling, for reconstructions: the source through the VAE and back; floor: another real
    picture. NaN where no part shows in both.
    """
    others = random_others(table, records, seed)
    rows = []
    for start in tqdm(range(0, len(table), BATCH), desc="score part identity", unit="batch"):
        batch = table.iloc[start : start + BATCH]
        sources = sorted({source for row in batch["sources"] for source in row})
        origins = np.array([_origins(row, sources, predictor.part_count) for row in batch.itertuples()])
        real = _load([records.loc[source, "path"] for source in sources], data_folder, size)
        embedded = identity.embed_parts(real, predictor.segment(real)[0])
        rebuilt = (batch["kind"] == "reconstruction").to_numpy()
        of_batch = others[start : start + BATCH]
        has_other = np.array([other is not None for other in of_batch])
        shown = {"": (np.ones(len(batch), bool), _load(batch["path"], data_folder, size))}
        if has_other.any():
            paths = [records.loc[other, "path"] for other in of_batch if other is not None]
            shown["_floor"] = has_other, _load(paths, data_folder, size)
        if rebuilt.any():
            shown["_ceiling"] = rebuilt, through_vae(vae, real[origins[rebuilt, 0]])
        scores = pd.DataFrame(np.nan, batch.index, [f"part_identity{suffix}" for suffix in ("", "_floor", "_ceiling")])
        for suffix, (of, pictures) in shown.items():
            cosines = identity.compare(pictures, predictor.segment(pictures)[0], embedded, origins[of])
            scores.loc[of, f"part_identity{suffix}"] = pd.DataFrame(cosines[:, 1:]).mean(axis=1).to_numpy()
        rows.append(scores)
    return pd.concat(rows)


def _origins(row: Any, sources: list[str], part_count: int) -> list[int]:
    """For each part, background first, the place in `sources` of the picture it is from."""
    origins = [sources.index(row.sources[0])] * (part_count + 1)
    for source, part in zip(row.sources[1:], row.swapped, strict=True):
        origins[part] = sources.index(source)
    return origins


def _load(paths: Iterable[str], data_folder: Path, size: int) -> np.ndarray:
    return load_pictures([data_folder / path for path in paths], size)
