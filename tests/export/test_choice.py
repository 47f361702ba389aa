"""Choosing tokens, and naming them."""

import re
from itertools import pairwise

import numpy as np
import pytest

from partcraft_kedro.errors import UserError
from partcraft_kedro.export.choice import choose_tokens, title_of, words_of
from partcraft_kedro.prompts import PartToken

NAMES = ["background", "head", "part 2"]
COUNTS = [np.array([2, 5]), np.array([0, 3, 9]), np.array([4, 4, 0])]


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ("all", [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]),
        ("common:1", [(0, 1), (1, 2), (2, 0)]),
        (" common : 9 ", [(0, 1), (0, 0), (1, 2), (1, 1), (2, 0), (2, 1)]),
        ("head:2,background:0", [(0, 0), (1, 2)]),
        ("<head:2>, part 2:1", [(1, 2), (2, 1)]),
        ("[1,0]", [(1, 0)]),
        ("[1,0][2,1]", None),
        ("[1,0] [ 2 , 1 ],1:2,1:2", [(1, 0), (1, 2), (2, 1)]),
    ],
)
def test_a_choice_is_the_tokens_that_it_names(asked, tokens) -> None:
    if tokens is None:
        with pytest.raises(UserError, match="which is no token"):
            choose_tokens(asked, NAMES, COUNTS)
    else:
        assert choose_tokens(asked, NAMES, COUNTS) == [PartToken(*token) for token in tokens]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("haed:1", r"There is no part 'haed': did you mean 'head'\?"),
        ("head:3", "'head:3', but the variants of head go from 0 to 2"),
        ("3:0", "'3:0', but parts go from 0 to 2"),
        ("[1,9]", r"'\[1,9\]', but the variants of head"),
        ("head", "'head', which is no token: write all, common:10"),
        ("common:0", "common:0 chooses none"),
        ("common:-1", "which is no token"),
        ("", "--tokens is empty"),
        (",", "--tokens is empty"),
    ],
)
def test_what_is_no_choice_is_told_in_one_sentence(asked, told) -> None:
    with pytest.raises(UserError, match=told) as error:
        choose_tokens(asked, NAMES, COUNTS)
    assert "\n" not in str(error.value)


def test_a_part_whose_name_is_a_number_is_named_first() -> None:
    assert choose_tokens("1:0", ["background", "head", "1"], COUNTS) == [PartToken(2, 0)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["background", "Head", "left wing"], ["background", "head", "left-wing"]),
        (["background", "Flügel", "Flugel"], ["background", "flugel", "flugel-2"]),
        (["фон", "голова", "part 1"], ["part-0", "part-1", "part-1-2"]),
        (["CON", "cock's comb", "a - b"], ["con", "cock-s-comb", "a-b"]),
    ],
)
def test_names_are_those_of_files_on_every_system(names, expected) -> None:
    words = words_of([PartToken(m, 17) for m in range(3)], title_of("CUB 200 – Vögel"), names, [np.zeros(256)] * 3)
    assert words == [f"partcraft-cub-200-vogel-{part}-017" for part in expected]
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", word) for word in words)


@pytest.mark.parametrize("largest", [4, 256, 1200])
def test_no_word_is_the_beginning_of_another(largest) -> None:
    counts = [np.zeros(largest)] * 3
    every = choose_tokens("all", ["a", "a 1", "a 10"], counts)
    words = sorted(words_of(every, "partcraft-x", ["a", "a 1", "a 10"], counts))
    assert len(set(words)) == 3 * largest
    assert not any(after.startswith(word) for word, after in pairwise(words))


def test_a_dataset_of_another_script_has_a_title_too() -> None:
    assert title_of("птицы") == "partcraft-parts"
