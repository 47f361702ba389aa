"""tiny's tokenizer: a byte-level BPE in CLIP's format."""

import json
from pathlib import Path

from transformers import CLIPTokenizer

from partcraft_kedro.drawn.worlds import COLOURS, LABELS, PLACES, STYLES, WORLDS

CONTEXT = 48  # tokens


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Its merges spell the caption words; other words fall into letters."""
    words = ["a", "photo", "of", "on", *(world.noun for world in WORLDS.values())]
    words += [*LABELS, *COLOURS, *STYLES, *PLACES]
    alphabet = _byte_alphabet()
    vocabulary, merges = alphabet + [letter + "</w>" for letter in alphabet], []
    # Each merge is applied to all words at once, as the tokenizer will: a merge that one word needs may otherwise
    # break another apart.
    spelt = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    while unfinished := [pieces for pieces in spelt.values() if len(pieces) > 1]:
        first, second = unfinished[0][:2]
        merges.append(f"{first} {second}")
        vocabulary.append(first + second)
        spelt = {word: _merged(pieces, first, second) for word, pieces in spelt.items()}
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT)


def _merged(pieces: list[str], first: str, second: str) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and merged[-1] == first and piece == second:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in printable] + [chr(256 + extra) for extra in range(256 - len(printable))]
