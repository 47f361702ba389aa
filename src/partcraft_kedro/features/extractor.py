"""Dense patch features from any model of DINOv2's or DINOv3's architecture, with registers or without."""

import numpy as np
import torch
import torch.nn.functional as F

from partcraft_kedro.devices import half_precision, resolve_device
from partcraft_kedro.errors import UserError
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.weights import load_image_encoder

# Where transformers keeps the blocks of each type of model, and its final LayerNorm.
_PLACES = {
    "dinov2": ("encoder", "layernorm"),
    "dinov2_with_registers": ("encoder", "layernorm"),
    "dinov3_vit": ("model", "norm"),
}


class FeatureExtractor:
    """A frozen DINOv2 or DINOv3: pictures in, patch features out, class token and registers dropped.

    model: `tiny`, a local folder in Hugging Face layout, or a hub id such as `facebook/dinov2-base`.
    layer: the block whose hidden state is taken, from 1; None: the last. Later blocks are not computed.
    final_norm: whether the model's final LayerNorm is applied to it.
    size: pixels, both ways, that pictures are brought to; None: as the model's image processor has it. DINOv2's patches
    are 14 pixels wide, DINOv3's 16: 448 pixels make 32×32 patches of one, 512 of the other.
    mirrored: whether to average with the features of the mirror image, mirrored back: features then know nothing of
    left and right, and a mirrored picture has the mirrored features. Twice the work.
    Float16 on a GPU; on a CPU bfloat16 where it computes in it, else float32.
    Raises UserError if the model cannot be loaded, is neither DINOv2 nor DINOv3, or has no such layer; or if
    size is less than a patch.
    """

    def __init__(
        self,
        model: str,
        *,
        layer: int | None = None,
        final_norm: bool = False,
        size: int | None = None,
        mirrored: bool = False,
        device: str = "auto",
    ):
        self.model, self.device = model, (device := resolve_device(device))
        self._half = half_precision(device)
        network, processor = load_image_encoder(model, "features.model", "a DINOv2 or DINOv3 model", _PLACES)
        place, norm = _PLACES[network.config.model_type]
        encoder = network.get_submodule(place)
        depth = len(encoder.layer)
        if layer is not None and layer > depth:
            raise UserError(f"features.layer={layer} is too large: {model!r} has {depth} blocks.")
        encoder.layer = encoder.layer[:layer]
        if not final_norm:
            setattr(network, norm, torch.nn.Identity())
        self._mirrored = mirrored
        self.network = network.to(device).eval().requires_grad_(False)
        own = processor.crop_size if processor.do_center_crop else processor.size
        if not (processor.image_mean and processor.image_std and own and own.get("height")):
            raise UserError(f"features.model={model!r} lacks image_mean, image_std or a height in its image processor.")
        self._mean = torch.tensor(processor.image_mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(processor.image_std, device=device).view(3, 1, 1)
        self.size = size or own["height"]  # pixels, both ways
        self.grid = self.size // (patch := network.config.patch_size)  # patches, both ways
        if not self.grid:
            raise UserError(f"features.size={size} is too small: {model!r} has patches of {patch} pixels.")
        self.width = self.network.config.hidden_size
        self._before_patches = 1 + getattr(self.network.config, "num_register_tokens", 0)  # tokens

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray | torch.Tensor) -> torch.Tensor:
        """(n, h, w, 3) uint8, or (n, 3, h, w) float in 0..1 → (n, grid², width) float32 on the CPU.

        Pictures of another size are resized (bicubic, antialiased); they are square already.
        """
        if isinstance(pictures, np.ndarray):
            pictures = to_unit(pictures)
        pictures = pictures.to(self.device)
        if pictures.shape[-1] != self.size:
            pictures = resized(pictures, self.size)
        pictures = (pictures - self._mean) / self._std
        features = self._features(pictures)
        if self._mirrored:
            features = (features + self._features(pictures.flip(-1)).flip(2)) / 2
        return features.flatten(1, 2).cpu()

    def _features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalised pictures (n, 3, h, w) → (n, grid, grid, width) float32."""
        with torch.autocast(torch.device(self.device).type, self._half, enabled=self._half is not None):
            hidden = self.network(pictures).last_hidden_state[:, self._before_patches :]
        return hidden.float().unflatten(1, (self.grid, self.grid))


def resized(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Square pictures, (n, 3, h, h) in 0..1 → (n, 3, size, size), bicubic and antialiased."""
    return F.interpolate(pictures, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
