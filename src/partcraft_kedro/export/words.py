"""Exported tokens as prompts of other programs have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from partcraft_kedro.prompts import TEMPLATES, PartToken


@dataclass(frozen=True)
class Word:
    """A token that is exported.

    word: what it is called outside; part: the name of its part; count: how many training pictures show it; crop: the
    part in a real picture, (side, side, 3) uint8, of the picture that is most typical of it; none if no picture shows
    it.
    """

    token: PartToken
    word: str
    part: str
    count: int
    crop: np.ndarray | None

    @property
    def short(self) -> str:
        """The end of the word that tells it from others of its part."""
        return self.word.rpartition("-")[2]

    @property
    def beginning(self) -> str:
        """What it has in common with others of its part."""
        return self.word.removesuffix(self.short)


class Program(NamedTuple):
    """How a program is asked for words. form: of each word, `{}` in its place; ending: of the prompt."""

    name: str
    form: str
    ending: str

    def prompt(self, words: Sequence[Word]) -> str:
        """What to paste into it."""
        return TEMPLATES[0].format(" ".join(self.form.format(word.word) for word in words)) + self.ending


def programs(title: str, has_lora: bool, *, diffusers: bool, webui: bool) -> list[Program]:
    """Those that an export is for. has_lora: whether there is LoRA beside the words."""
    bundle, lora = (f" <lora:{title}-bundle:1>", f" <lora:{title}:1>") if has_lora else ("", "")
    of_webui = [
        Program("AUTOMATIC1111", "{}", bundle),
        Program("Forge", "{}", lora),
        Program("ComfyUI", "embedding:{}", ""),
    ]
    return of_webui * webui + [Program("diffusers", "{}", "")] * diffusers


def example_of(words: Sequence[Word]) -> list[Word]:
    """One word for each part, that which most pictures show, part by part."""
    parts = dict.fromkeys(word.part for word in words)
    return [max((word for word in words if word.part == part), key=lambda word: word.count) for part in parts]
