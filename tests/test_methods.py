"""Presets fill what is left open, and give way to what is not."""

import pytest
from pydantic import ValidationError

from partcraft_kedro.methods import METHODS
from partcraft_kedro.options import TrainOptions

OPEN = {
    "steps": 1,
    "batch_size": 1,
    "micro_batch": None,
    "gradient_checkpointing": False,
    "compile": False,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "rank": 4,
    "lora_layers": "cross",
    "template_probability": 0.0,
    "snr_gamma": None,
    "max_gradient_norm": 1.0,
    "checkpoint_every": 1,
    "log_every": 1,
    "sample_every": 1,
    "seed": 0,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_determines_the_same_options_as_every_other(method: str) -> None:
    assert METHODS[method].keys() == METHODS["partcraft"].keys()
    assert TrainOptions(**OPEN, method=method).model_dump(include=METHODS[method].keys()) == METHODS[method]


def test_methods_differ() -> None:
    assert len({tuple(preset.items()) for preset in METHODS.values()}) == len(METHODS)


def test_what_the_user_says_wins_over_the_method() -> None:
    options = TrainOptions(**OPEN, method="break_a_scene", attention_weight=0.1, union_sampling=False)
    assert options.attention_weight == 0.1 and not options.union_sampling
    assert options.masked_loss  # the rest is as the method has it
    assert TrainOptions(**OPEN, method="partcraft", attention_weight=0.0).attention_weight == 0


def test_an_unknown_method_is_the_one_thing_complained_of() -> None:
    with pytest.raises(ValidationError, match="textual_inversion") as caught:
        TrainOptions(**OPEN, method="textual-inversion")
    assert [error["loc"] for error in caught.value.errors()] == [("method",)]
