"""Dense patch features from any model of DINOv2's architecture."""

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoImageProcessor, Dinov2Model

from partcraft_kedro.assets import resolve_device, resolve_model
from partcraft_kedro.errors import UserError
from partcraft_kedro.images.tensors import to_unit


class FeatureExtractor:
    """A frozen DINOv2: pictures in, patch features out.

    model: `tiny`, a local folder in Hugging Face layout, or a hub id such as `facebook/dinov2-base`.
    The features are the last block's hidden state before the final LayerNorm, class token dropped.
    Raises UserError if the model cannot be loaded.
    """

    def __init__(self, model: str, device: str = "auto"):
        folder = resolve_model(model, "feature_extractor", "features.model")
        self.device = device = resolve_device(device)
        transformers.utils.logging.disable_progress_bar()
        try:
            network = Dinov2Model.from_pretrained(folder, use_safetensors=True)
            processor = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"features.model={model!r} cannot be loaded as a DINOv2 model: {reason}") from error
        self.network = network.to(device).eval().requires_grad_(False)
        self._mean = torch.tensor(processor.image_mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(processor.image_std, device=device).view(3, 1, 1)
        size = processor.crop_size if processor.do_center_crop else processor.size
        self.size = size["height"]  # pixels, both ways
        self.grid = self.size // self.network.config.patch_size  # patches, both ways
        self.width = self.network.config.hidden_size

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(n, h, w, 3) uint8, or (n, 3, h, w) float in 0..1 → (n, grid², width) float32 on the CPU.

        Pictures of another size are resized (bicubic, antialiased); they are square already.
        """
        if isinstance(pictures, np.ndarray):
            pictures = to_unit(pictures)
        pictures = pictures.to(self.device)
        if pictures.shape[-1] != self.size:
            size = (self.size, self.size)
            pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
        embedded = self.network.embeddings((pictures - self._mean) / self._std)
        return self.network.encoder(embedded).last_hidden_state[:, 1:].float().cpu()
