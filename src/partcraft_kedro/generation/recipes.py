"""What a picture was made from, kept inside its PNG."""

import json
from pathlib import Path
from typing import IO, Annotated, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.schedulers import SAMPLERS
from partcraft_kedro.options import SamplingOptions

MOST_STEPS, MOST_GUIDANCE = 200, 50.0
_CHUNK = "partcraft"  # the text chunk that holds a recipe as JSON


class Recipe(BaseModel):
    """All that a picture depends on: the same recipe, the same picture.

    Nothing of it may be trusted: it can come with a file from anywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    prompt: Annotated[str, Field(max_length=2000)]
    """Words and tokens of the form `[part,variant]`."""
    seed: NonNegativeInt
    """Of the initial noise, with `noise`."""
    noise: Annotated[str, Field(max_length=200)]
    """The name that the picture has among those of its seed."""
    sampling: SamplingOptions
    """How it was sampled."""
    adapter: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """The fingerprint of the adapter's content."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in a picture and in a link; what is fast or fits changes none."""
        return self.model_dump(mode="json", exclude={"sampling": {"batch_size", "compile"}})


def write_picture(picture: Image.Image, recipe: Recipe, path: Path) -> None:
    """Save a PNG with its recipe: as JSON, and as the text `parameters` that AUTOMATIC1111 and others show."""
    info = PngInfo()
    info.add_itxt("parameters", _in_words(recipe, picture))
    info.add_itxt(_CHUNK, json.dumps(recipe.to_json()))
    picture.save(path, pnginfo=info)


def read_recipe(file: Path | IO[bytes]) -> Recipe | None:
    """The recipe inside a PNG of `write_picture`; None if there is none. Raises UserError for one that is wrong."""
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            picture.load()  # text may stand after the pixels
            text = getattr(picture, "text", {}).get(_CHUNK)
    except Exception:  # Pillow's reader raises whatever it stumbles over
        return None
    return None if text is None else parse_recipe(text)


def parse_recipe(text: str) -> Recipe:
    """A recipe from JSON. Raises UserError if it is none."""
    try:
        recipe = Recipe.model_validate_json(text)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "its text"
        raise UserError(f"This recipe cannot be used: {place} is missing or wrong.") from error
    if recipe.sampling.steps > MOST_STEPS:
        raise UserError(f"This recipe asks for {recipe.sampling.steps} steps: at most {MOST_STEPS} are taken.")
    if recipe.sampling.guidance_scale > MOST_GUIDANCE:
        raise UserError(f"This recipe asks for more guidance than {MOST_GUIDANCE:g}, which is the most that is taken.")
    return recipe


def _in_words(recipe: Recipe, picture: Image.Image) -> str:
    """In the form that AUTOMATIC1111's web interface writes: prompt, negative prompt, and a line of settings."""
    sampling = recipe.sampling
    negative = f"Negative prompt: {sampling.negative_prompt}\n" if sampling.negative_prompt else ""
    settings = {
        "Steps": sampling.steps,
        "Sampler": SAMPLERS.get(sampling.scheduler, "the model's own"),
        "CFG scale": sampling.guidance_scale,
        "CFG rescale": sampling.guidance_rescale,
        "Seed": recipe.seed,
        "Size": f"{picture.width}x{picture.height}",
        "Version": f"PartCraft, adapter {recipe.adapter}, noise {recipe.noise}",
    }
    return f"{recipe.prompt}\n{negative}" + ", ".join(f"{name}: {value}" for name, value in settings.items())
