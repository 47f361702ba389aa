"""Decoding of pictures, whatever their format, mode and orientation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from partcraft_kedro.errors import UserError, in_one_line

# Pillow refuses twice as many as bombs: a gigapixel, which nothing but JPEG, decoded reduced, may come near.
Image.MAX_IMAGE_PIXELS = 2**29
_MOST_PIXELS = 180_000_000  # that are decoded whole, 4 bytes each
_PROMISED = 4096  # items given to threads at once
Item = TypeVar("Item")
Result = TypeVar("Result")
_HEIC = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftyphevx")  # whatever a file's name says


def open_picture(path: Path) -> Image.Image:
    """Decode whole, upright, in RGB; transparency on white, the first frame of an animation.

    A JPEG of more than 180 megapixels is decoded at a half, a quarter or an eighth of its size, so that fewer are left.
    Raises UserError naming the file if it cannot be decoded, or is larger and no JPEG.
    """
    return decode(path)[0]


def decode(path: Path) -> tuple[Image.Image, tuple[int, int]]:
    """`open_picture`, and the picture's true width and height, upright."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            _reduce(opened)
            upright = _turn_upright(opened)
            if upright.size != opened.size:  # turned, and no square
                width, height = height, width
            if upright.mode.startswith(("I", "F")):  # Pillow would clip them to white, or to black
                upright = _to_eight_bits(upright)
            if upright.has_transparency_data:
                layers = Image.new("RGBA", upright.size, "white"), upright.convert("RGBA")
                upright = Image.alpha_composite(*layers)
            return upright.convert("RGB"), (width, height)
    except FileNotFoundError:
        raise UserError(f"Picture {path} is missing: restore it, or delete its folder to have it made again.") from None
    except Exception as error:  # Pillow's many readers raise whatever they stumble over
        if _is_heic(path):
            raise UserError(
                f"Picture {path} is in HEIC, which is not read here: convert it to JPEG, for example with `magick "
                "mogrify -format jpg *.heic`, and move the original elsewhere."
            ) from error
        reason = in_one_line(error)
        raise UserError(f"Picture {path} cannot be decoded ({reason}): replace or remove it.") from error


def _reduce(opened: Image.Image) -> None:
    """Have a huge picture decoded smaller, which JPEG's cosines allow; raises ValueError for others."""
    width, height = opened.size
    scale = 1
    while width * height > _MOST_PIXELS * scale**2:
        scale *= 2
    if scale > 1 and opened.draft(None, (width // scale, height // scale)) is None:
        raise ValueError(
            f"of {width * height / 1e6:.0f} megapixels, and only JPEG may have more than {_MOST_PIXELS / 1e6:.0f}"
        )


def _turn_upright(opened: Image.Image) -> Image.Image:
    """As EXIF says, if it can be read: most programs show a picture whose EXIF is damaged."""
    opened.load()
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:
        return opened


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Of 16 bits white is 65,535; of floats 1, or the brightest value beyond it."""
    values = np.nan_to_num(np.asarray(picture, np.float64), posinf=0, neginf=0)
    white = max(values.max(), 1) if picture.mode == "F" else 65535
    return Image.fromarray((values.clip(0, white) / (white / 255)).astype(np.uint8))


def _is_heic(path: Path) -> bool:
    if path.suffix.lower() in (".heic", ".heif", ".hif"):
        return True
    with suppress(OSError), path.open("rb") as file:
        return file.read(12)[4:] in _HEIC
    return False


def load_picture(path: Path, size: int) -> np.ndarray:
    """The centre square of a picture, resized (bicubic): (size, size, 3) uint8. Raises UserError as `open_picture`."""
    return np.asarray(ImageOps.fit(open_picture(path), (size, size), Image.Resampling.BICUBIC))


def load_pictures(paths: Iterable[Path], size: int) -> np.ndarray:
    """Several pictures, (n, size, size, 3) uint8."""
    pictures = [load_picture(path, size) for path in paths]
    return np.stack(pictures) if pictures else np.empty((0, size, size, 3), np.uint8)


def load_ahead(batches: Iterable[Sequence[Path]], size: int) -> Iterator[np.ndarray]:
    """`load_pictures` of each batch in turn, the next one decoded by threads while the caller works on this one."""
    with ThreadPoolExecutor() as pool:
        waiting: list[Iterator[np.ndarray]] = []
        for batch in batches:
            waiting.append(pool.map(lambda path: load_picture(path, size), batch))
            if len(waiting) > 1:
                yield np.stack(list(waiting.pop(0)))
        for last in waiting:
            yield np.stack(list(last))


def map_by_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item in turn, by threads. The pool's own `map` would hold a promise of two kilobytes for each
    of ten million."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(items), _PROMISED):
            yield from pool.map(function, items[start : start + _PROMISED])
