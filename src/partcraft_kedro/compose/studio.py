"""The studio: draws prompts, and looks at what was drawn."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from partcraft_kedro.compose.palette import Palette
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.recipes import Recipe
from partcraft_kedro.generation.sampling import Sampler, to_images
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import BaseModelOptions, SamplingOptions
from partcraft_kedro.parts.predictor import ABSENT, PartPredictor
from partcraft_kedro.prompts import find_tokens, parse_tokens
from partcraft_kedro.weights import adapter_fingerprint

_LONGEST = 3  # times its height that a donor may be wide, or the other way round: only its centre square is looked at


@dataclass(frozen=True)
class Seen:
    """What the part predictor sees in a picture.

    label_map: (grid, grid) uint8; code: of each part, None where it does not show; cosine: of each with its variant's
    centroid, 1 for a typical one.
    """

    label_map: np.ndarray
    code: list[int | None]
    cosine: list[float]


@dataclass(frozen=True)
class Made:
    """A picture that the studio drew. attention: where each token looked, by part, (h, w) float32."""

    picture: Image.Image
    recipe: Recipe
    seen: Seen
    attention: dict[int, np.ndarray]

    @property
    def asked(self) -> dict[int, int]:
        """The variants that the prompt asks for, by part."""
        return {token.part: token.variant for token in find_tokens(self.recipe.prompt)}

    @property
    def arrived(self) -> dict[int, bool]:
        """Of each part that was asked for, whether the predictor finds the asked variant: their share is the EMR."""
        return {part: self.seen.code[part] == variant for part, variant in self.asked.items()}


class Studio:
    """A finished run, to make pictures with.

    adapter: its folder, None if nothing was trained yet; sampling: what is used where nothing else is asked for;
    versions: the adapters that there are, version → folder.
    """

    def __init__(
        self,
        palette: Palette,
        predictor: PartPredictor,
        base: BaseModelOptions,
        sampling: SamplingOptions,
        adapter: Path | None = None,
        versions: Mapping[str, Path] | None = None,
    ):
        self.palette, self.sampling, self.adapter = palette, sampling, adapter
        self._predictor, self._base, self._versions = predictor, base, versions or {}
        self._loading, self._drawing = threading.Lock(), threading.Lock()
        self._fingerprints: dict[Path, str] = {}

    @property
    def parts_fingerprint(self) -> str:
        """Of what parts there are: tokens of others mean something else."""
        return self._predictor.fingerprint

    @property
    def fingerprint(self) -> str:
        """Of what the adapter draws with."""
        return self._fingerprint_of(self._trained())

    def _fingerprint_of(self, adapter: Path) -> str:
        """Adapters are never written anew: each is read once."""
        if adapter not in self._fingerprints:
            self._fingerprints[adapter] = adapter_fingerprint(adapter)
        return self._fingerprints[adapter]

    @property
    def version(self) -> str | None:
        """The adapter's version, or the folder that it lies in; None if there is none."""
        versions = {folder: version for version, folder in self._versions.items()}
        return None if self.adapter is None else versions.get(self.adapter, str(self.adapter))

    @property
    def model(self) -> PartCraft:
        """The adapter on its base model, loaded when it is first asked for. Raises UserError if there is none."""
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> PartCraft:
        base = self._base
        model = PartCraft.load(self._trained(), base.device, base.precision, base.model, base.config)
        if model.settings["variants"] != [len(variants) for variants in self._predictor.variants]:
            raise UserError(
                f"The adapter {self.adapter} was made for other parts than there are now: train again, or choose the "
                "adapter of these parts."
            )
        return model

    def _trained(self) -> Path:
        if self.adapter is None:
            raise UserError("Nothing can be drawn before an adapter is trained: run `kedro run --pipelines=train`.")
        return self.adapter

    def make(
        self,
        prompt: str,
        *,
        seed: int = 0,
        noises: Sequence[str] = ("0",),
        sampling: SamplingOptions | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Made]:
        """A picture of the prompt for each name of noise. Its tokens are `[1,17]` or `<head:17>`.

        on_step: called after each denoising step with the steps done and their number; what it raises ends the work.
        Raises UserError for an unknown token, a prompt that is too long, and before there is an adapter.
        """
        sampling = (sampling or self.sampling).model_copy(update={"batch_size": len(noises)})
        prompt = parse_tokens(prompt, self.model.settings["variants"], self.palette.names)
        maps: list[torch.Tensor] = []
        sampler = Sampler(self.model, sampling, seed, on_step=on_step, attention=maps)
        with self._drawing:  # a pipeline draws one batch at a time
            pictures = torch.cat(list(sampler.batches([prompt] * len(noises), noises)))
        attention = [of_picture.numpy() for batch in maps for of_picture in batch]
        parts = [token.part for token in find_tokens(prompt)]
        made = []
        for image, noise, looked in zip(to_images(pictures), noises, attention, strict=True):
            recipe = Recipe(prompt=prompt, seed=seed, noise=noise, sampling=sampling, adapter=self.fingerprint)
            made.append(Made(image, recipe, self.look_at(image), {part: looked[part] for part in parts}))
        return made

    def look_at(self, picture: Image.Image) -> Seen:
        """The parts in a picture, and the variants that they are nearest to.

        Raises UserError for one that is so long that hardly anything of it is in its centre square.
        """
        longer, shorter = max(picture.size), min(picture.size)
        if longer > _LONGEST * shorter:
            raise UserError(
                f"This picture has {picture.width} × {picture.height} pixels, and only the square in its middle would "
                "be looked at: crop it first."
            )
        square = ImageOps.fit(picture.convert("RGB"), (shorter, shorter))
        label_maps, codes, cosines = self._predictor.segment(np.asarray(square)[None])
        code = [None if variant == ABSENT else int(variant) for variant in codes[0]]
        return Seen(label_maps[0], code, [round(float(cosine), 4) for cosine in cosines[0]])

    def check(self, recipe: Recipe) -> Recipe:
        """The recipe, if this studio's adapter can follow it. Raises UserError."""
        if recipe.adapter == self.fingerprint:
            parse_tokens(recipe.prompt, [len(variants) for variants in self._predictor.variants])
            return recipe
        for version, folder in self._versions.items():
            if self._fingerprint_of(folder) == recipe.adapter:
                raise UserError(
                    f"This picture was made with the adapter {version}: start again with --adapter={version} to go on "
                    "from it."
                )
        raise UserError(f"This picture was made with an adapter that is not here ({recipe.adapter}).")
