"""Which of an adapter's tokens are exported, and what other programs call them."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from partcraft_kedro.errors import UserError, unknown
from partcraft_kedro.prompts import PartToken

_COMMON = re.compile(r"common\s*:\s*(\d+)")
_NUMBERS = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]")  # `[1,17]`
_NAMED = re.compile(r"<?\s*([^<>:\[\],]+?)\s*:\s*(\d+)\s*>?")  # `head:17`, `<head:17>`, `1:17`


def choose_tokens(asked: str, names: Sequence[str], counts: Sequence[np.ndarray]) -> list[PartToken]:
    """The tokens of a choice, part by part.

    asked: `all`; `common:N`, of each part the N that most pictures show; or a list, `head:17, wing:3` or
    `[1,17] [2,3]`. names: of the parts, background first; counts: of each part how many pictures show each variant.
    Raises UserError for a token that there is not, or a choice of another form.
    """
    if asked.strip() == "all":
        return [PartToken(part, variant) for part, of_part in enumerate(counts) for variant in range(len(of_part))]
    if common := _COMMON.fullmatch(asked.strip()):
        most = int(common[1])
        if not most:
            raise UserError("--tokens=common:0 chooses none: give how many of each part, such as common:10.")
        return [PartToken(part, int(k)) for part, of_part in enumerate(counts) for k in _commonest(of_part, most)]
    items = [item.strip() for item in re.split(r",(?![^\[]*\])|(?<=\])\s+", asked) if item.strip()]
    tokens = [_token(item, names, counts) for item in items]
    if not tokens:
        raise UserError("--tokens is empty: give all, common:10, or tokens such as head:17,wing:3.")
    return sorted(set(tokens))


def _commonest(of_part: np.ndarray, most: int) -> np.ndarray:
    """Of those that any picture shows the commonest, of equally common ones the first."""
    return np.argsort(-of_part, kind="stable")[: min(most, np.count_nonzero(of_part))]


def _token(item: str, names: Sequence[str], counts: Sequence[np.ndarray]) -> PartToken:
    """One token of a list."""
    found = _NUMBERS.fullmatch(item) or _NAMED.fullmatch(item)
    if not found:
        raise UserError(f"--tokens has {item!r}, which is no token: write all, common:10, head:17 or [1,17].")
    part, variant = found[1], int(found[2])
    if part not in names and not part.isdecimal():
        raise unknown("part", part, names)
    number = list(names).index(part) if part in names else int(part)
    if number >= len(counts):
        raise UserError(f"--tokens has {item!r}, but parts go from 0 to {len(counts) - 1}.")
    if variant >= len(counts[number]):
        raise UserError(
            f"--tokens has {item!r}, but the variants of {names[number]} go from 0 to {len(counts[number]) - 1}."
        )
    return PartToken(number, variant)


def title_of(dataset: str) -> str:
    """What an adapter is called in other programs, and begin the names of all its files with: `partcraft-cub`."""
    return f"partcraft-{_plain(dataset) or 'parts'}"


def words_of(tokens: Sequence[PartToken], title: str, names: Sequence[str], counts: Sequence[np.ndarray]) -> list[str]:
    """A word for each token, such as `partcraft-cub-head-017`, that is a file's name on every system.

    ASCII, lower case, no blank and no dot: AUTOMATIC1111 cuts the keys of a bundle at dots, ComfyUI ends a name at a
    blank. No word begins with another one, since AUTOMATIC1111 looks for words anywhere in a prompt: all numbers have
    equally many digits.
    """
    parts: list[str] = []
    for number, name in enumerate(names):
        plain = _plain(name) or f"part-{number}"
        parts.append(f"{plain}-{number}" if plain in parts else plain)
    digits = max(3, len(str(max(map(len, counts)) - 1)))
    return [f"{title}-{parts[token.part]}-{token.variant:0{digits}d}" for token in tokens]


def _plain(name: str) -> str:
    """A name in ASCII letters, digits and hyphens; empty if it is of another script."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
