import hashlib

import numpy as np
import pytest
import torch

from partcraft_kedro.randomness import derive_seed, numpy_generator, torch_generator

MAKERS = {
    "numpy": lambda *key: numpy_generator(*key).uniform(size=4).tolist(),
    "torch": lambda *key: torch.rand(4, generator=torch_generator(*key)).tolist(),
}


def test_seed_is_the_first_63_bits_of_the_key_s_sha256():
    digest = hashlib.sha256(b"7/noise/3/a").hexdigest()
    assert derive_seed(7, "noise", 3, "a") == int(digest[:16], 16) // 2


@pytest.mark.parametrize("draw", MAKERS.values(), ids=MAKERS)
def test_equal_keys_draw_equal_numbers_whatever_was_drawn_between(draw):
    first = draw(1, "flip", 5)
    draw(1, "flip", 6)
    assert draw(1, "flip", 5) == first


@pytest.mark.parametrize("draw", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("other", [(2, "flip", 5), (1, "noise", 5), (1, "flip", 6), (1, "flip")])
def test_every_part_of_the_key_counts(draw, other):
    assert draw(1, "flip", 5) != draw(*other)


def test_global_states_are_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for draw in MAKERS.values():
        draw(0, "anything")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
