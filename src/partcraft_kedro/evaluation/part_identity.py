"""Does a generated part look like its source? Asked of an encoder that had no part in finding the parts.

EMR and CoSim reuse the clusters that supervised the training. Here the clusters say only where a part is.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from partcraft_kedro.devices import half_precision, resolve_device
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.scores import BATCH, random_others, through_vae
from partcraft_kedro.evaluation.swaps import Swaps
from partcraft_kedro.images.crops import crop_to
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.parts.predictor import PartPredictor, masks_of
from partcraft_kedro.weights import load_image_encoder, model_fingerprint

OPTION = "evaluate.part_identity"
_CROPS = 64  # embedded at once
_BOUNDS = ("", "_ceiling", "_floor")


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
) -> dict[str, np.ndarray]:
    """What `Scored.of_parts` has of parts, by name: `part_identity`, each part's cosine with its source's, of the
    background NaN, and `identity_transfer`, `identity_preservation` and `identity_leakage`.

    table: of `Scored`. Ceiling, for reconstructions: the source through the VAE and back; floor: another real picture.
    NaN where a part does not show in both.
    """
    labels = predictor.part_count + 1
    others = random_others(table, records, seed)
    swaps = Swaps.of_plan(table, labels)
    kept: dict[int, torch.Tensor] = {}  # of pictures that others are compared with, which come later
    cosines, as_asked, same = ({bound: np.full((len(table), labels), np.nan) for bound in _BOUNDS} for _ in range(3))
    for start in tqdm(range(0, len(table), BATCH), desc="score part identity", unit="batch"):
        batch = table.iloc[start : start + BATCH]
        sources = sorted({source for row in batch["sources"] for source in row})
        real = _load([records.loc[source, "path"] for source in sources], data_folder, size)
        of_sources = identity.embed_parts(real, predictor.segment(real)[0])
        rows = np.arange(start, start + len(batch))
        rebuilt = (batch["kind"] == "reconstruction").to_numpy()
        has_other = np.array([others[row] is not None for row in rows])
        bases = real[[sources.index(row[0]) for row in batch["sources"][rebuilt]]]
        shown = {
            "": (rows, _load(batch["path"], data_folder, size)),
            "_ceiling": (rows[rebuilt], through_vae(vae, bases) if rebuilt.any() else bases),
            "_floor": (
                rows[has_other],
                _load([records.loc[others[row], "path"] for row in rows[has_other]], data_folder, size),
            ),
        }
        for bound, (of, pictures) in shown.items():
            if not len(of):
                continue
            for row, ours in zip(of, identity.embed_parts(pictures, predictor.segment(pictures)[0]), strict=True):
                named = list(table["sources"].iloc[row])
                theirs = of_sources[[sources.index(source) for source in dict.fromkeys(named)]]
                alike = F.cosine_similarity(ours, theirs, dim=-1).numpy()
                origins = _origins(named, table["swapped"].iloc[row], labels)
                cosines[bound][row] = alike[origins, np.arange(labels)]
                as_asked[bound][row] = most_like(alike, origins)
                if not bound and row in swaps.before:
                    kept[row] = ours
                if swaps.before[row] >= 0:
                    same[bound][row] = F.cosine_similarity(ours, kept[swaps.before[row]], dim=-1).numpy()
    of_parts: dict[str, np.ndarray] = {}
    for bound in _BOUNDS:
        cosines[bound][:, 0] = np.nan
        of_swaps = swaps.measures(as_asked[bound], same[bound], "identity_")
        of_parts |= {f"{name}{bound}": of for name, of in ({"part_identity": cosines[bound]} | of_swaps).items()}
    return of_parts


def most_like(alike: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """1 where a part is more like that of its own source than that of any other, else 0: (M+1,).

    alike: its cosine with each source's, (sources, M+1), NaN where it does not show in both; origins: the row of its
    own, (M+1,). NaN where there is no own or no other cosine.
    """
    columns = np.arange(alike.shape[1])
    own = alike[origins, columns]
    others = np.where(np.isnan(alike), -np.inf, alike)
    others[origins, columns] = -np.inf
    best = others.max(0)
    return np.where(np.isnan(own) | np.isinf(best), np.nan, own > best)


def _origins(sources: list[str], swapped: Iterable[int], labels: int) -> np.ndarray:
    """For each part, background first, the place among the distinct sources of the picture it is from."""
    places = list(dict.fromkeys(sources))
    origins = np.zeros(labels, int)
    for source, part in zip(sources[1:], swapped, strict=True):
        origins[part] = places.index(source)
    return origins


def _load(paths: Iterable[str], data_folder: Path, size: int) -> np.ndarray:
    return load_pictures([data_folder / path for path in paths], size)
