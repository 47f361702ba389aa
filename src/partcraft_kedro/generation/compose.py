"""Which pictures to generate: reconstructions, and compositions of several pictures' parts."""

import numpy as np
import pandas as pd

from partcraft_kedro.prompts import compose_prompt
from partcraft_kedro.randomness import numpy_generator


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


def plan_pictures(
    ids: list[str], codes: np.ndarray, *, reconstructions: int, compositions: int, most_sources: int, seed: int
) -> pd.DataFrame:
    """A table of pictures to generate.

    Columns: `id`; `kind` (`reconstruction` or `composition`); `sources`, record ids, the base first; `swapped`,
    the part taken from each further source; `code`, (M+1,); `prompt`.
    ids, codes: of the pictures to draw from; compositions: for each number of sources 1..most_sources, which must be
    no more than there are pictures, nor than M+1 parts.
    """
    rows = []
    chosen = numpy_generator(seed, "reconstructions").permutation(len(ids))[:reconstructions]
    for row in sorted(chosen):
        rows.append(("reconstruction", [ids[row]], [], codes[row]))
    for count in range(1, most_sources + 1):
        for repeat in range(compositions):
            rng = numpy_generator(seed, "composition", count, repeat)
            sources = rng.choice(len(ids), count, replace=False)
            composed, swapped = compose_code(codes[sources], rng)
            rows.append(("composition", [ids[row] for row in sources], swapped, composed))
    table = pd.DataFrame(rows, columns=["kind", "sources", "swapped", "code"])
    table["prompt"] = [compose_prompt(code) for code in table["code"]]
    table.insert(0, "id", [f"{kind}_{i:05d}" for i, kind in enumerate(table["kind"])])
    return table
