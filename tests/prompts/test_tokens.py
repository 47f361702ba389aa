import numpy as np
import pytest

from partcraft_kedro.errors import UserError
from partcraft_kedro.prompts import (
    TEMPLATES,
    PartToken,
    compose_prompt,
    draw_prompt,
    find_tokens,
    join_prompt,
    parse_tokens,
    split_prompt,
    tokens_of,
)

VARIANTS = [8, 256, 256, 4]


def test_the_paper_s_prompt():
    assert compose_prompt(np.array([4, 222, 55])) == "a photo of a [0,4] [1,222] [2,55]"


def test_an_absent_part_has_no_token():
    assert tokens_of(np.array([4, -1, 55])) == [(0, 4), (2, 55)]
    assert compose_prompt(np.array([4, -1, 55])) == "a photo of a [0,4] [2,55]"


def test_a_generator_shuffles_the_tokens_and_varies_the_template():
    code = np.array([4, 222, 55, 1])
    prompts = [str(draw_prompt(code, np.random.default_rng(seed), 0.5)) for seed in range(200)]
    for prompt in prompts:
        first = prompt.index("[")
        assert prompt[:first] + "{}" in TEMPLATES
        assert sorted(find_tokens(prompt)) == tokens_of(code)
    assert len({tuple(find_tokens(prompt)) for prompt in prompts}) == 24  # 4! orders
    # The first template comes with probability 1/2 + 1/2 · 1/27 = .52; ±4 standard deviations of 200 draws.
    assert 76 <= sum(prompt.startswith("a photo of a [") for prompt in prompts) <= 132
    assert str(draw_prompt(code, np.random.default_rng(3), 0.5)) == prompts[3]


def test_without_a_template_probability_the_words_stay():
    prompts = {str(draw_prompt(np.array([1, 2]), np.random.default_rng(seed), 0.0)) for seed in range(20)}
    assert prompts == {"a photo of a [0,1] [1,2]", "a photo of a [1,2] [0,1]"}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a photo of a [2,101] [3,1] teddy bear", "a photo of a [2,101] [3,1] teddy bear"),
        ("a photo of a 2:101 3:1 teddy bear", "a photo of a [2,101] [3,1] teddy bear"),
        ("[0, 4], then 1:222.", "[0,4], then [1,222]."),
        ("[ 1 , 007 ][2,0]", "[1,7][2,0]"),
        ("no tokens, at 12:30:45 or 9:30pm", "no tokens, at 12:30:45 or 9:30pm"),
        ("", ""),
    ],
)
def test_both_notations_mix_with_free_text(text, parsed):
    assert parse_tokens(text, VARIANTS) == parsed


def test_tokens_are_found_in_order_of_appearance():
    assert find_tokens("3:1 bird [0,5] and 2:255") == [PartToken(3, 1), PartToken(0, 5), PartToken(2, 255)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a [4,0]", r"\[4,0\] names part 4, but parts go from 0 to 3"),
        ("a 3:4 bird", r"\[3,4\] names variant 4, but part 3 has 0 to 3"),
        ("a [1,2] bird 1:3", "part 1 more than once"),
        ("a [1,2] [1,2]", "part 1 more than once"),
    ],
)
def test_what_no_adapter_knows_is_refused_by_name(text, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_tokens(text, VARIANTS)


NAMES = ["background", "head", "left wing", "tail"]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a <head:101> bird with a < left wing : 7 > and [3,1]", "a [1,101] bird with a [2,7] and [3,1]"),
        ("<b>bold</b> and a < b", "<b>bold</b> and a < b"),
    ],
)
def test_parts_go_by_their_names_too(text, parsed):
    assert parse_tokens(text, VARIANTS, NAMES) == parsed


@pytest.mark.parametrize(
    ("text", "names", "complaint"),
    [
        ("a <beak:1>", NAMES, "<beak:1> names part 'beak', but the parts are called background, head, left wing, tail"),
        ("a <head:1>", [], "the parts have no names here"),
        ("a <tail:4>", NAMES, r"\[3,4\] names variant 4, but part 3 has 0 to 3"),
        ("a <head:1> [1,2]", NAMES, "part 1 more than once"),
    ],
)
def test_an_unknown_name_is_refused(text, names, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_tokens(text, VARIANTS, names)


@pytest.mark.parametrize(
    ("before", "code", "after", "prompt"),
    [
        ("a photo of a", [0, None, 3], "", "a photo of a [0,0] [2,3]"),
        ("a photo of a", [None, 12, None], "on a rock", "a photo of a [1,12] on a rock"),
        ("a bird", [None, 1, None], ", on sand", "a bird [1,1], on sand"),
        ("", [None, None, 2], "", "[2,2]"),
        ("a bird", [None, None, None], "", "a bird"),
        ("", [None, None, None], "", ""),
    ],
)
def test_a_prompt_by_its_pieces_and_back(before: str, code: list, after: str, prompt: str) -> None:
    assert join_prompt(before, code, after) == prompt
    # Without a token there is no telling what comes before it.
    assert split_prompt(prompt, 3) == (before, code, after)


def test_words_between_tokens_come_after_them() -> None:
    assert split_prompt("a [1,2] with [0,3] wings , on sand", 3) == ("a", [3, 2, None], "with wings, on sand")
