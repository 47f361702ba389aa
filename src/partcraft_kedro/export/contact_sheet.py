"""One look at what is exported: each word with the part it stands for, as a picture and as a page to choose from."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from partcraft_kedro.export.words import Program, Word, example_of
from partcraft_kedro.parts.sheet import CROP
from partcraft_kedro.prompts import TEMPLATES
from partcraft_kedro.templates import load_template

_ACROSS, _MOST = 10, 20  # words in a row, and of a part, on the picture; the page has all
_MARGIN, _GAP, _LINE = 24, 10, 22
_INK, _PALE, _TEAL, _PAPER = "#263238", "#78909c", "#00796b", "#ffffff"


def draw_sheet(title: str, words: Sequence[Word], programs: Sequence[Program]) -> Image.Image:
    """The commonest words of each part, and for each program the prompt to paste for those in the frame."""
    by_part = {part: [word for word in words if word.part == part] for part in dict.fromkeys(w.part for w in words)}
    shown = {part: sorted(of_part, key=lambda word: -word.count)[:_MOST] for part, of_part in by_part.items()}
    across = min(_ACROSS, max(map(len, shown.values())))
    prompts = [(program.name, program.prompt(example_of(words))) for program in programs]
    small, bold, large = _font(13), _font(14, "bold"), _font(22, "bold")
    left = _MARGIN + round(max(bold.getlength(name) for name, _ in prompts)) + 14
    width = max(2 * _MARGIN + across * (CROP + _GAP) - _GAP, 900)
    lines = [(name, line) for name, prompt in prompts for line in [_wrapped(prompt, small, width - left - _MARGIN)]]
    rows = sum(-(-len(of_part) // across) for of_part in shown.values())
    head = _MARGIN + 40 + sum(_LINE * len(line) for _, line in lines) + 34
    height = head + len(shown) * 36 + rows * (CROP + 44) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _INK, large)
    y = _MARGIN + 44
    for name, line in lines:
        pen.text((_MARGIN, y), name, _TEAL, bold)
        for text in line:
            pen.text((left, y + 1), text, _INK, small)
            y += _LINE
    pen.text((_MARGIN, y + 2), "These prompts ask for the words in a frame.", _PALE, small)
    y += 34
    framed = {word.word for word in example_of(words)}
    for part, of_part in shown.items():
        more = len(by_part[part]) - len(of_part)
        heading = f"{part}: {len(by_part[part])} words" + (f", the {len(of_part)} commonest" if more else "")
        pen.text((_MARGIN, y), heading, _INK, bold)
        pen.text((_MARGIN + bold.getlength(heading) + 12, y + 1), f"{of_part[0].beginning}…", _PALE, small)
        y += 28
        for start in range(0, len(of_part), across):
            for column, word in enumerate(of_part[start : start + across]):
                corner = (_MARGIN + column * (CROP + _GAP), y)
                _draw_word(sheet, pen, word, corner, word.word in framed, bold, small)
            y += CROP + 44
        y += 8
    return sheet


def _draw_word(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    word: Word,
    corner: tuple[int, int],
    framed: bool,
    bold: ImageFont.FreeTypeFont,
    small: ImageFont.FreeTypeFont,
) -> None:
    """Crop, number and count. corner: the upper left one of the crop."""
    x, y = corner
    if word.crop is None:
        pen.rectangle((x, y, x + CROP - 1, y + CROP - 1), outline=_PALE)
    else:
        sheet.paste(Image.fromarray(word.crop), corner)
    if framed:
        pen.rectangle((x - 3, y - 3, x + CROP + 2, y + CROP + 2), outline=_TEAL, width=3)
    pen.text((x, y + CROP + 6), f"…{word.short}", _INK, bold)
    pen.text((x + CROP, y + CROP + 7), f"{word.count:,}×", _PALE, small, anchor="ra")


def _font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which knows the letters of most scripts."""
    return ImageFont.truetype(findfont(f"DejaVu Sans:{weight}"), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """A text in lines of at most `width` pixels, broken at blanks."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def render_page(title: str, words: Sequence[Word], programs: Sequence[Program]) -> str:
    """A page that needs no network: who clicks on parts reads the prompt for each program."""
    parts = dict.fromkeys(word.part for word in words)
    return load_template(Path(__file__).with_name("contact_sheet.html.j2")).render(
        title=title,
        parts=[(part, [word for word in words if word.part == part]) for part in parts],
        chosen={word.word for word in example_of(words)},
        programs=programs,
        template=TEMPLATES[0],
        picture=_as_address,
    )


def _as_address(crop: np.ndarray) -> str:
    """A picture as a `data:` address."""
    buffer = BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
