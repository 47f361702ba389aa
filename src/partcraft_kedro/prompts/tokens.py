"""Part tokens: `[m,k]` stands for variant k of part m (Eq. 3); part 0 is the background."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from partcraft_kedro.errors import UserError

_NAMED = re.compile(r"<\s*([^<>:]+?)\s*:\s*(\d+)\s*>")  # `<head:101>`
# `[2,101]`, or `2:101` as the authors' scripts write it.
_TOKEN = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]|(?<![\w:])(\d+):(\d+)(?![\w:])")

# `{}` takes the tokens. The first is the paper's; the others vary the picture's kind, not its content.
TEMPLATES = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)


class PartToken(NamedTuple):
    """Variant `variant` of part `part`."""

    part: int
    variant: int

    def __str__(self) -> str:
        return f"[{self.part},{self.variant}]"


def tokens_of(code: np.ndarray) -> list[PartToken]:
    """A code (M+1,) as tokens; absent parts (negative entries) get none."""
    return [PartToken(part, int(variant)) for part, variant in enumerate(code) if variant >= 0]


class PartPrompt(NamedTuple):
    """One of `TEMPLATES`, and the tokens that it takes."""

    template: str
    tokens: list[PartToken]

    def __str__(self) -> str:
        return self.template.format(" ".join(map(str, self.tokens)))


def draw_prompt(code: np.ndarray, rng: np.random.Generator, template_probability: float) -> PartPrompt:
    """A code's tokens in random order; with `template_probability` in another template than the first."""
    tokens, template = tokens_of(code), TEMPLATES[0]
    tokens = [tokens[i] for i in rng.permutation(len(tokens))]
    if rng.uniform() < template_probability:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
    return PartPrompt(template, tokens)


def compose_prompt(code: np.ndarray) -> str:
    """`a photo of a [0,4] [1,222] … [M,K]`."""
    return str(PartPrompt(TEMPLATES[0], tokens_of(code)))


def join_prompt(before: str, code: Sequence[int | None], after: str) -> str:
    """`before [0,4] [2,17] after`; a part of None gets no token: it is left to the model."""
    tokens = [str(PartToken(part, variant)) for part, variant in enumerate(code) if variant is not None]
    front = " ".join(filter(None, [before.strip(), *tokens]))
    after = after.strip()
    return front + after if after.startswith((",", ".", ";")) else " ".join(filter(None, [front, after]))


def split_prompt(prompt: str, parts: int) -> tuple[str, list[int | None], str]:
    """The inverse of `join_prompt`, for a code of `parts` labels; words that stand between tokens come after them."""
    variants = {token.part: token.variant for token in find_tokens(prompt)}
    before, _, after = _TOKEN.sub("\0", prompt).partition("\0")
    after = " ".join(after.replace("\0", " ").split()).replace(" ,", ",")
    return before.strip(), [variants.get(part) for part in range(parts)], after


def find_tokens(text: str) -> list[PartToken]:
    """The part tokens in a text, in order of appearance, in either notation."""
    return [PartToken(*(int(n) for n in match.groups() if n is not None)) for match in _TOKEN.finditer(text)]


def parse_tokens(text: str, variants: list[int], names: Sequence[str] = ()) -> str:
    """Check a prompt and bring its part tokens to the form `[m,k]`; free text stays as it is.

    variants: the number of variants of each part, background first; names: of the parts, for tokens such as
    `<head:101>`.
    Raises UserError naming the token that no adapter with these parts knows, or a part named twice.
    """

    def by_number(match: re.Match) -> str:
        name, variant = match.groups()
        if name not in names:
            known = f"the parts are called {', '.join(names)}" if names else "the parts have no names here"
            raise UserError(f"Prompt token {match[0]} names part {name!r}, but {known}.")
        return str(PartToken(list(names).index(name), int(variant)))

    text = _NAMED.sub(by_number, text)
    tokens = find_tokens(text)
    for token in tokens:
        if token.part >= len(variants):
            raise UserError(
                f"Prompt token {token} names part {token.part}, but parts go from 0 to {len(variants) - 1}."
            )
        if token.variant >= variants[token.part]:
            last = variants[token.part] - 1
            raise UserError(
                f"Prompt token {token} names variant {token.variant}, but part {token.part} has 0 to {last}."
            )
    parts = [token.part for token in tokens]
    for token in tokens:
        if parts.count(token.part) > 1:
            raise UserError(f"The prompt names part {token.part} more than once: keep one token for each part.")
    return _TOKEN.sub(lambda match: str(PartToken(*(int(n) for n in match.groups() if n is not None))), text)
