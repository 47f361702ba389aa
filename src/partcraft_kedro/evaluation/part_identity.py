"""Does a generated part look like its source? Asked of an encoder that had no part in finding the parts.

EMR and CoSim reuse the clusters that supervised the training. Here the clusters say only where a part is.
"""

import numpy as np
import torch
import torch.nn.functional as F

from partcraft_kedro.devices import half_precision, resolve_device
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.figures import crop_to
from partcraft_kedro.parts.predictor import masks_of
from partcraft_kedro.weights import load_image_encoder, model_fingerprint

OPTION = "evaluate.part_identity"
_BATCH = 64


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
        blank = self._forward([np.zeros((8, 8, 3), np.uint8)])
        if blank is None:
            raise UserError(f"{OPTION}={model!r} has no pooled output: give a model such as CLIP or DINOv2.")
        self.width = blank.shape[1]
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
        for start in range(0, len(shown), _BATCH):
            rows, labels = shown[start : start + _BATCH].T
            crops = [crop_to(pictures[i], masks[i, m]) for i, m in zip(rows, labels, strict=True)]
            embedded[rows, labels] = self._forward(crops)
        return embedded

    @torch.inference_mode()
    def _forward(self, crops: list[np.ndarray]) -> torch.Tensor | None:
        """Squares (s, s, 3) uint8 of any size → (n, width) float32 on the CPU; None without a pooled output."""
        inputs = self._processor(crops, input_data_format="channels_last", return_tensors="pt").pixel_values
        with torch.autocast(torch.device(self.device).type, self._half, enabled=self._half is not None):
            pooled = getattr(self._network(inputs.to(self.device)), "pooler_output", None)
        return None if pooled is None else pooled.flatten(1).float().cpu()
