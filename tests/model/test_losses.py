import math

import pytest
import torch
from diffusers import DDPMScheduler

from partcraft_kedro.model.losses import attention_inside, attention_loss, min_snr_weights

# Two parts on a 2×2 map; the shares of the first are 3/4, 1/2, 1/5, 1.
MAPS = torch.tensor([[[[0.3, 0.2], [0.1, 0.6]], [[0.1, 0.2], [0.4, 0.0]]]])
MASKS = torch.tensor([[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]])


def test_attention_loss_by_hand():
    # Either part: -ln(3/4) - ln(1/2) - ln(4/5) - ln 1, as two parts' shares and masks mirror each other.
    expected = -math.log(3 / 4 * 1 / 2 * 4 / 5) / 4
    assert attention_loss(MAPS, MASKS).item() == pytest.approx(expected, abs=1e-5)


def test_break_a_scene_s_loss_by_hand():
    """Each map over its maximum, .6 and .4, then squared errors: (.3/.6 - 1)², (.2/.6)², (.1/.6)², (.6/.6 - 1)²; and
    (.1/.4)², (.2/.4 - 1)², (.4/.4 - 1)², 0."""
    expected = (1 / 4 + 1 / 9 + 1 / 36 + 1 / 16 + 1 / 4) / 8
    assert attention_loss(MAPS, MASKS, "squared_error", "maximum").item() == pytest.approx(expected, abs=1e-6)


def test_either_loss_goes_with_either_normalisation_by_hand():
    """Shares of .75, .5, .2 and 1 in the first part, which mirrors the second; maps over their maximum as above."""
    squared = (0.25**2 + 0.5**2 + 0.2**2) / 4
    assert attention_loss(MAPS, MASKS, "squared_error", "parts").item() == pytest.approx(squared, abs=1e-6)
    entropies = [1 / 2, 2 / 3, 5 / 6, 1, 3 / 4, 1 / 2, 1, 1]
    expected = -sum(math.log(share) for share in entropies) / 8
    assert attention_loss(MAPS, MASKS, "cross_entropy", "maximum").item() == pytest.approx(expected, abs=1e-5)


def test_the_scale_of_the_maps_does_not_matter():
    torch.testing.assert_close(attention_loss(MAPS * 1e-4, MASKS), attention_loss(MAPS, MASKS))


def test_a_part_without_a_token_is_left_out():
    maps = torch.cat([MAPS, torch.zeros(1, 1, 2, 2)], dim=1)
    masks = torch.cat([MASKS, torch.ones(1, 1, 2, 2)], dim=1)
    torch.testing.assert_close(attention_loss(maps, masks), attention_loss(MAPS, MASKS))


def test_the_mean_is_over_the_parts_that_have_a_token_then_over_pictures():
    """One picture with two parts, one with a single part whose share is 1 everywhere and mask 1 on half of it."""
    alone = torch.stack([torch.full((2, 2), 0.2), torch.zeros(2, 2)])[None]
    masks = torch.cat([MASKS, torch.tensor([[[[1, 1], [0, 0]], [[0, 0], [1, 1]]]])])
    both = attention_loss(torch.cat([MAPS, alone]), masks)
    of_alone = -math.log(1e-6) / 2  # shares are kept 1e-6 away from 0 and 1
    assert both.item() == pytest.approx((attention_loss(MAPS, MASKS).item() + of_alone) / 2, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_are_finite_at_exact_zeros(dtype):
    maps = torch.zeros(2, 3, 2, 2, dtype=dtype)
    maps[0, 0, 0, 0] = 1  # all attention on one place, none elsewhere
    maps[0, 1, 0, 1] = 0.5
    maps.requires_grad_()
    loss = attention_loss(maps, torch.eye(2).expand(2, 3, 2, 2))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert maps.grad.isfinite().all()


def test_without_any_token_the_loss_is_a_zero_with_a_gradient():
    maps = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = attention_loss(maps, torch.ones(1, 2, 2, 2))
    loss.backward()
    assert loss.item() == 0
    assert (maps.grad == 0).all()


def test_attention_inside_by_hand():
    maps = torch.cat([MAPS, torch.zeros(1, 1, 2, 2)], dim=1)
    masks = torch.cat([MASKS, torch.ones(1, 1, 2, 2)], dim=1)
    inside = attention_inside(maps, masks)[0].tolist()
    assert inside[:2] == pytest.approx([0.9 / 1.2, 0.6 / 0.7])
    assert math.isnan(inside[2])


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Signal .5, .9 and .2: signal-to-noise ratios 1, 9 and 1/4; γ = 5.
    [
        ("epsilon", [1, 5 / 9, 1]),
        ("v_prediction", [1 / 2, 5 / 10, 0.25 / 1.25]),
        ("sample", [1, 5, 0.25]),
    ],
)
def test_min_snr_weights_by_hand(kind, expected):
    schedule = DDPMScheduler(trained_betas=[0.1, 4 / 9, 0.6], prediction_type=kind)
    weights = min_snr_weights(schedule, torch.tensor([1, 0, 2]), 5.0)
    assert weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "expected"), [("epsilon", 1), ("v_prediction", 0), ("sample", 0)])
def test_pure_noise_has_a_finite_weight(kind, expected):
    schedule = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type=kind)
    assert min_snr_weights(schedule, torch.tensor([999]), 5.0).item() == expected
