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


@pytest.mark.parametrize(
    ("method", "what_makes_it"),
    [
        ("partcraft", {"unet": "lora", "bottleneck_layers": 2, "attention_loss": "cross_entropy"}),
        ("textual_inversion", {"unet": "frozen", "bottleneck_layers": 0, "attention_weight": 0}),
        ("dreambooth", {"unet": "full", "bottleneck_layers": 0, "attention_weight": 0, "masked_loss": False}),
        ("custom_diffusion", {"unet": "key_value", "bottleneck_layers": 0, "attention_weight": 0}),
        ("break_a_scene", {"unet": "full", "attention_weight": 0.01, "masked_loss": True, "union_sampling": True}),
        ("break_a_scene", {"attention_loss": "squared_error", "attention_normalisation": "maximum"}),
        ("no_bottleneck", {"unet": "lora", "bottleneck_layers": 0, "attention_weight": 0.01}),
        ("mse_attention", {"unet": "lora", "bottleneck_layers": 2, "attention_loss": "squared_error"}),
        ("no_attention_loss", {"unet": "lora", "bottleneck_layers": 2, "attention_weight": 0}),
    ],
)
def test_each_method_is_what_its_name_says(method: str, what_makes_it: dict) -> None:
    assert TrainOptions(**OPEN, method=method).model_dump(include=what_makes_it.keys()) == what_makes_it


@pytest.mark.parametrize(("method", "rate"), [("dreambooth", 5e-6), ("custom_diffusion", 8e-5)])
def test_the_unet_learns_at_the_authors_rate_where_tokens_do_at_the_paper_s(method: str, rate: float) -> None:
    options = TrainOptions(**OPEN | {"learning_rate": 1e-4}, method=method)
    assert options.learning_rate * options.unet_learning_rate_factor == pytest.approx(rate)


def test_what_the_user_says_wins_over_the_method() -> None:
    options = TrainOptions(**OPEN, method="break_a_scene", attention_weight=0.1, union_sampling=False)
    assert options.attention_weight == 0.1 and not options.union_sampling
    assert options.masked_loss  # the rest is as the method has it
    assert TrainOptions(**OPEN, method="partcraft", attention_weight=0.0).attention_weight == 0


def test_an_unknown_method_is_the_one_thing_complained_of() -> None:
    with pytest.raises(ValidationError, match="textual_inversion") as caught:
        TrainOptions(**OPEN, method="textual-inversion")
    assert [error["loc"] for error in caught.value.errors()] == [("method",)]
