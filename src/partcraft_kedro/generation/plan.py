"""Which pictures to generate: reconstructions, compositions of several pictures' parts, transfers of chosen parts; and
where what belongs to a picture lies."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from partcraft_kedro.prompts import compose_prompt
from partcraft_kedro.randomness import numpy_generator

NOTHING = "nothing"  # what is transferred to a pair's first picture where it is drawn as it is


def compose_code(codes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Lines 8 to 17 of Algorithm 1: swap one random part in from each further picture, no part twice.

    codes: (N, M+1), the codes of the N source pictures, N at most M+2.
    Returns the composed code (M+1,) and the part taken from each of codes[1:].
    """
    composed = codes[0].copy()
    remaining = list(range(codes.shape[1]))
    swapped = []
    for other in codes[1:]:
        part = remaining.pop(rng.integers(len(remaining)))
        composed[part] = other[part]
        swapped.append(part)
    return composed, swapped


def make_plan(
    ids: list[str],
    codes: np.ndarray,
    *,
    reconstructions: int,
    compositions: int,
    max_sources: int,
    transfers: int,
    transferred: Mapping[str, int],
    seed: int,
) -> pd.DataFrame:
    """A table of pictures to generate.

    Columns: `id`; `kind` (`reconstruction`, `composition` or `transfer`); `transferred`, the names of a transfer's
    parts, else empty; `sources`, record ids, the base first; `swapped`, the part taken from each further source;
    `code`, (M+1,); `prompt`; `before`, the id of the same picture without the last swap, empty where there is none;
    `noise`, the name of its initial noise: that of the picture before, so that the two differ by the swap alone.
    ids, codes: of the pictures to draw from; compositions: chains of one picture for each number of sources
    1..max_sources, each with a further swap, where max_sources must be no more than there are pictures, nor than M+1
    parts; transfers: pairs, of each of which the first picture is drawn as it is, with each part of `transferred`,
    name → number, of the second, and with all of them.
    """
    rows: list[tuple[str, str, list[str], list[int], np.ndarray, int | None]] = []
    chosen = numpy_generator(seed, "reconstructions").permutation(len(ids))[:reconstructions]
    for row in sorted(chosen):
        rows.append(("reconstruction", "", [ids[row]], [], codes[row], None))
    for count in range(1, max_sources + 1):
        for repeat in range(compositions):
            rng = numpy_generator(seed, "composition", repeat)  # of any count: the first sources and swaps are the same
            sources = rng.permutation(len(ids))[:count]
            composed, swapped = compose_code(codes[sources], rng)
            before = len(rows) - compositions if count > 1 else None
            rows.append(("composition", "", [ids[row] for row in sources], swapped, composed, before))
    sets = [[name] for name in transferred] + ([list(transferred)] if len(transferred) > 1 else [])
    for pair in range(transfers if len(ids) > 1 and transferred else 0):
        base, donor = numpy_generator(seed, "transfer", pair).choice(len(ids), 2, replace=False)
        first = len(rows)
        rows.append(("transfer", NOTHING, [ids[base]], [], codes[base], None))
        for names in sets:
            parts = [transferred[name] for name in names]
            code = codes[base].copy()
            code[parts] = codes[donor][parts]
            rows.append(("transfer", " and ".join(names), [ids[base], *[ids[donor]] * len(parts)], parts, code, first))
    table = pd.DataFrame(rows, columns=["kind", "transferred", "sources", "swapped", "code", "before"])
    table["prompt"] = [compose_prompt(code) for code in table["code"]]
    table.insert(0, "id", [f"{kind}_{i:05d}" for i, kind in enumerate(table["kind"])])
    noise: list[str] = []
    for name, (*_, before) in zip(table["id"], rows, strict=True):
        noise.append(name if before is None else noise[before])
    return table.assign(before=["" if row[-1] is None else table["id"][row[-1]] for row in rows], noise=noise)


def looked_path(picture: Path) -> Path:
    """Where `sampling.write_pictures` puts which token looked most at each place of a picture."""
    return picture.parent / "looked" / picture.name
