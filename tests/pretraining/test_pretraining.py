"""How tiny is made, in small; and what the shipped tiny can do."""

import numpy as np
import pytest
import torch
from partcraft_kedro.evaluation.judge import Judge
from partcraft_kedro.pretraining.base import CaptionedBatch, build_tokenizer, grounding_loss, reading_loss
from torch import nn

from partcraft_kedro.assets import TINY
from partcraft_kedro.images import creatures
from partcraft_kedro.images.tensors import to_unit
from partcraft_kedro.model.attention import ATTENTION_LAYERS
from partcraft_kedro.model.base import load_base
from partcraft_kedro.pretraining.fitting import fit
from partcraft_kedro.pretraining.pictures import (
    attribute_indices,
    caption,
    draw_pretraining_pictures,
    patch_codes,
    patch_fractions,
)
from partcraft_kedro.pretraining.tiny import describe
from partcraft_kedro.randomness import numpy_generator


def test_every_caption_word_is_one_token(tmp_path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    words = ["a", "photo", "of", "bird", "on", *creatures.LABELS[1:]]
    words += [*creatures.COLOURS, *creatures.PATTERNS, *creatures.BACKGROUNDS]
    for word in words:
        ids = tokenizer(word).input_ids
        assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == [f"{word}</w>"]
    rng = np.random.default_rng(0)
    longest = describe(creatures.random_creature(rng))
    assert len(tokenizer(longest).input_ids) <= tokenizer.model_max_length
    assert tokenizer.decode(tokenizer("teddy bear").input_ids, skip_special_tokens=True) == "teddy bear"


def test_captions_name_what_shows_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    creature = creatures.random_creature(rng)
    attributes, visible = attribute_indices(creature), np.array([True, True, True, True, True, False])
    texts = [caption(attributes, visible, rng) for _ in range(300)]
    assert not any("legs" in text for text in texts)
    assert any(f"{creature.head} head" in text for text in texts)
    assert 10 <= sum(text == "" for text in texts) <= 60
    named = [text.split(", ")[1:] for text in texts if text]
    allowed = {f"{creature.attribute(part)} {part}" for part in creatures.PARTS} | {f"on {creature.background}"}
    assert all(set(phrases) <= allowed for phrases in named)
    assert len({tuple(phrases) for phrases in named}) > 50


def test_pretraining_never_shows_a_held_out_pair(tmp_path) -> None:
    drawn = draw_pretraining_pictures(tmp_path, 40, seed=1, species=20)
    pairs = creatures.held_out_pairs(creatures.make_species(20, seed=0))
    kinds, colours = list(creatures.BACKGROUNDS), list(creatures.COLOURS)
    for attributes in drawn.attributes:
        looks = {
            part: creatures.Look(colours[first], creatures.PATTERNS[second])
            for part, (first, second) in zip(creatures.PARTS, attributes[1:], strict=True)
        }
        creature = creatures.Creature(**looks, background=kinds[attributes[0, 0]])
        assert not creatures.is_held_out(creature, pairs)


def test_patch_codes_by_hand() -> None:
    """One patch: a quarter head (label 2, red, striped), the rest background of kind 3."""
    masks = np.zeros((1, 128, 128), np.uint8)
    masks[0, :4, :4] = 2
    attributes = np.zeros((1, 6, 2), np.uint8)
    attributes[0, 0] = 3, 0
    attributes[0, 2] = 0, 1
    code = patch_codes(patch_fractions(masks), attributes, (1.0, 2.0, 3.0, 4.0, 5.0))[0, 0, 0]
    expected = np.zeros(23)
    expected[0] = 1 - 2 * 0.75
    expected[1 + 1] = 2 * 0.25
    expected[6 + 3] = 3 * 0.75
    expected[14 + 0] = 4 * 0.25
    expected[20 + 1] = 5 * 0.25
    assert code == pytest.approx(expected)


@pytest.fixture
def batch() -> CaptionedBatch:
    """One picture of 8×8 latents: the left quarter is body (plain yellow), an eighth of that head (striped red)."""
    masks = torch.zeros(1, 6, 8, 8)
    masks[0, 1, :, :2] = 1
    masks[0, 1, 0, :2] = 0
    masks[0, 2, 0, :2] = 1
    masks[0, 0, :, 2:] = 1
    attributes = torch.tensor([[[3, 0], [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]])
    columns = torch.tensor([[7, 5, -1, 6, -1, -1]])  # the head is not named, the wing is but does not show
    return CaptionedBatch(torch.zeros(1, 4, 8, 8), masks, attributes, torch.zeros(1, 9), columns)


def test_small_parts_count_for_more_than_their_area(batch) -> None:
    weights = batch.evened()
    assert weights.mean() == pytest.approx(1)
    # 2 locations against 48: the weight of one grows with the square root of the ratio.
    assert (weights[0, 0, 0, 0] / weights[0, 0, 0, 7]).item() == pytest.approx((48 / 2) ** 0.5)


def test_grounding_by_hand(batch) -> None:
    """Every noun gets half of the attention everywhere: -log(1/2) for body and background, whatever their areas."""
    assert grounding_loss(torch.full((1, 6, 2, 2), 0.5), batch).item() == pytest.approx(np.log(2))
    blind = torch.full((1, 6, 2, 2), 0.5)
    blind[0, 1, :, 0] = 0.25  # the left column, where all of the body is
    assert grounding_loss(blind, batch).item() == pytest.approx((np.log(4) + np.log(2)) / 2)


def test_reading_by_hand(batch) -> None:
    """Evenly spread guesses cost log 6 + log 8 for the background and log 6 + log 6 + log 3 for a part."""
    groups = (6, 8, 6, 3)
    even = tuple(torch.full((1, n, 2, 2), -np.log(n)) for n in groups)
    expected = (np.log(48) + 2 * np.log(108)) / 3
    assert reading_loss(even, batch).item() == pytest.approx(expected, abs=1e-5)
    red = torch.full((1, 6, 2, 2), -np.log(6))
    red[:, 0] = 0.0  # certain of red: right for the head alone
    sure = (even[0], even[1], red, even[3])
    assert reading_loss(sure, batch).item() == pytest.approx(expected - np.log(6) / 3, abs=1e-5)


def test_an_interrupted_fit_ends_where_an_unbroken_one_does(tmp_path) -> None:
    def network() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(3, 1)

    def loss_for(module: nn.Linear, stop_at: int | None = None):
        def loss(step: int) -> torch.Tensor:
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.from_numpy(numpy_generator(0, "x", step).standard_normal((8, 3), dtype=np.float32))
            return (module(x) - x.sum(1, keepdim=True)).square().mean()

        return loss

    settings = {"steps": 20, "learning_rate": 0.1, "checkpoint_every": 5}
    whole, broken, again = network(), network(), network()
    fit(whole, loss_for(whole), tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, loss_for(broken, stop_at=13), tmp_path / "broken", **settings)
    fit(again, loss_for(again), tmp_path / "broken", **settings)
    assert torch.equal(whole.weight, again.weight)


def test_tiny_has_the_layers_of_the_paper() -> None:
    unet = load_base("tiny").unet
    for layer in ATTENTION_LAYERS:
        assert unet.get_submodule(layer).is_cross_attention
    size = sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())
    assert size < 25 * 2**20


def test_the_judge_knows_drawings() -> None:
    rng = np.random.default_rng(7)
    drawn = [(creatures.random_creature(rng), creatures.random_pose(rng)) for _ in range(40)]
    pictures = np.stack([creatures.draw(creature, pose)[0] for creature, pose in drawn])
    seen = Judge.load(TINY / "judge" / "judge.safetensors").attributes(to_unit(pictures))
    hits = [
        row[label] == creature.attribute(label)
        for row, (creature, pose) in zip(seen, drawn, strict=True)
        for label in creatures.LABELS
        if label != "legs" or pose.legs_visible
    ]
    assert np.mean(hits) > 0.9
