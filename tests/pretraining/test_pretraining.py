"""How tiny is made, in small; and what the shipped tiny is."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from partcraft_kedro.drawn.world import World
from partcraft_kedro.drawn.worlds import COLOURS, DETAILS, LABELS, PLACES, STYLES, WORLDS, attributes, numbers
from partcraft_kedro.model.attention import attention_layers
from partcraft_kedro.model.base import load_base
from partcraft_kedro.pretraining.examples import CaptionedBatch, Captions, Examples
from partcraft_kedro.pretraining.fitting import _Optimizer, fit, seconds_spent
from partcraft_kedro.pretraining.observers import build_vit
from partcraft_kedro.pretraining.pictures import (
    CODE_WIDTH,
    PretrainingPictures,
    caption,
    draw_pretraining_pictures,
    patch_codes,
    patch_fractions,
    world_of,
)
from partcraft_kedro.pretraining.text_to_image import Schooling, _Lessons, grounding_loss, reading_loss, velocity_loss
from partcraft_kedro.pretraining.tokenizer import build_tokenizer
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.weights import TINY

BODY, HEAD, WING = (LABELS.index(part) for part in ("body", "head", "wing"))


@pytest.fixture(params=WORLDS)
def world(request) -> World:
    return WORLDS[request.param]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> PretrainingPictures:
    return draw_pretraining_pictures(tmp_path_factory.mktemp("pictures"), 40, seed=1)


# --- Captions


def test_every_caption_word_is_one_token(tmp_path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    words = ["a", "photo", "of", "bird", "person", "on", *LABELS[1:], *COLOURS, *STYLES, *PLACES]
    for word in words:
        ids = tokenizer(word).input_ids
        assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == [f"{word}</w>"]
    assert tokenizer.decode(tokenizer("teddy bear").input_ids, skip_special_tokens=True) == "teddy bear"


def test_the_longest_caption_fits(tmp_path, world) -> None:
    tokenizer = build_tokenizer(tmp_path)
    longest = world.describe(world.random_subject(np.random.default_rng(0)))
    assert len(tokenizer(longest).input_ids) <= tokenizer.model_max_length


def test_captions_name_what_shows_and_nothing_else(world) -> None:
    rng = np.random.default_rng(0)
    subject = world.random_subject(rng)
    *_, hidden = world.looks
    visible = np.array([label in world.labels and label != hidden for label in LABELS])
    texts = [caption(world, attributes(world, subject), visible, rng) for _ in range(300)]
    assert not any(hidden in text for text in texts)
    first = next(iter(world.looks))
    assert any(f"{subject[first]} {first}" in text for text in texts)
    assert 10 <= sum(text == "" for text in texts) <= 60
    assert all(text.startswith(f"a photo of a {world.noun}") for text in texts if text)
    named = [text.split(", ")[1:] for text in texts if text]
    allowed = {f"{subject[part]} {part}" for part in world.looks} | {f"on {subject['background']}"}
    assert all(set(phrases) <= allowed for phrases in named)
    assert len({tuple(phrases) for phrases in named}) > 50


def test_captions_tell_where_each_label_s_noun_is(pictures, tmp_path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    ids, columns = Captions(pictures, tokenizer).draw(np.arange(40), np.random.default_rng(0))
    assert ids.shape == (40, tokenizer.model_max_length) and columns.shape == (40, len(LABELS))
    for row in range(40):
        words = [token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids[row])]
        place = PLACES[pictures.attributes[row, 0, 0]]
        for label, column in zip(LABELS, columns[row].tolist(), strict=True):
            noun = place if label == "background" else label
            assert words[column] == noun if column >= 0 else noun not in words
    assert (columns >= 0).any(0).all()


def test_captions_name_no_part_that_a_picture_hides(pictures, tmp_path) -> None:
    captions = Captions(pictures, build_tokenizer(tmp_path))
    shows = patch_fractions(pictures.details).any((1, 2))
    named = sum((captions.draw(np.arange(40), np.random.default_rng(seed))[1] >= 0).int() for seed in range(20)).numpy()
    assert ((named[:, 1:] > 0) == shows[:, 1:]).all()


@pytest.fixture
def hasty_threads():
    """Threads that take turns a hundred times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_captions_drawn_by_threads_are_those_drawn_in_turn(pictures, tmp_path) -> None:
    """Also while another caller of the tokenizer pads as it likes, as the pipeline that draws samples does."""
    tokenizer = build_tokenizer(tmp_path)
    captions = Captions(pictures, tokenizer)

    def draw(step: int) -> torch.Tensor:
        return captions.draw(np.arange(16), numpy_generator(0, "captions", step))[0]

    expected = [draw(step) for step in range(200)]
    with ThreadPoolExecutor(2) as pool:
        drawn = [pool.submit(draw, step) for step in range(200)]
        while not all(future.done() for future in drawn):
            tokenizer(["a photo"], padding="longest", return_tensors="pt")
        assert all(torch.equal(future.result(), ids) for future, ids in zip(drawn, expected, strict=True))


# --- Pictures


def test_pretraining_shows_all_worlds_in_turn_and_never_what_is_held_out(pictures) -> None:
    for index, looks in enumerate(pictures.attributes):
        world = world_of(index)
        subject = {"background": PLACES[looks[0, 0]]}
        for part in world.looks:
            style, colour = looks[LABELS.index(part)]
            subject[part] = f"{STYLES[style]} {COLOURS[colour]}"
        assert np.array_equal(attributes(world, subject), looks)
        assert not world.is_held_out(subject)
        assert set(np.unique(pictures.details[index])) <= set(numbers(world))
    assert [world_of(index).name for index in range(4)] == [*WORLDS] * 2


def test_drawn_pictures_are_taken_as_they_are(pictures, tmp_path) -> None:
    first = draw_pretraining_pictures(tmp_path, 4, seed=1)
    assert np.array_equal(first.pictures, pictures.pictures[:4])
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(draw_pretraining_pictures(tmp_path, 4, seed=1)) == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps


def test_patch_fractions_count_details_with_their_hosts() -> None:
    details = np.zeros((1, 128, 128), np.uint8)
    details[0, :4] = HEAD
    details[0, 4:6] = len(LABELS) + DETAILS.index("eye")
    fractions = patch_fractions(details)
    assert fractions.shape == (1, 16, 16, len(LABELS))
    assert fractions[0, 0, :, HEAD] == pytest.approx(0.75)
    assert fractions.sum(-1) == pytest.approx(1)


def test_patch_codes_by_hand() -> None:
    """One patch: a quarter head (red, striped), the rest background of the fourth kind."""
    details = np.zeros((1, 128, 128), np.uint8)
    details[0, :4, :4] = HEAD
    looks = np.full((1, len(LABELS), 2), -1, np.int16)
    looks[0, 0] = 3, 0
    looks[0, HEAD] = STYLES.index("striped"), COLOURS.index("red")
    code = patch_codes(patch_fractions(details), looks, (1.0, 2.0, 3.0, 4.0, 5.0))[0, 0, 0]
    expected = np.zeros(CODE_WIDTH)
    place, colour, style = np.cumsum([len(LABELS), len(PLACES), len(COLOURS)])
    expected[0] = 1 - 2 * 0.75
    expected[HEAD] = 2 * 0.25
    expected[place + 3] = 3 * 0.75
    expected[colour + COLOURS.index("red")] = 4 * 0.25
    expected[style + STYLES.index("striped")] = 5 * 0.25
    assert code == pytest.approx(expected)
    assert build_vit().config.hidden_size >= CODE_WIDTH  # else no rotation keeps the code


# --- Losses


@pytest.fixture
def batch() -> CaptionedBatch:
    """One creature of 8×8 latents: the left quarter is body (plain yellow), an eighth of that head (striped red), half
    of the head its eye."""
    details = torch.zeros(1, 8, 8, dtype=torch.uint8)
    details[0, :, :2] = BODY
    details[0, 0, 0] = HEAD
    details[0, 0, 1] = len(LABELS) + DETAILS.index("eye")
    looks = torch.full((1, len(LABELS), 2), -1)
    looks[0, 0] = torch.tensor([3, 0])
    looks[0, BODY] = torch.tensor([STYLES.index("plain"), COLOURS.index("yellow")])
    looks[0, HEAD] = torch.tensor([STYLES.index("striped"), COLOURS.index("red")])
    columns = torch.full((1, len(LABELS)), -1)
    columns[0, [0, BODY, WING]] = torch.tensor([7, 5, 6])  # the head is not named, the wing is but does not show
    return CaptionedBatch(torch.zeros(1, 4, 8, 8), details, looks, torch.zeros(1, 9), columns)


def test_small_parts_and_details_count_for_more_than_their_area(batch) -> None:
    weights = batch.evened()
    assert weights.mean() == pytest.approx(1)
    # Head and eye have 1 location each, the background 48: a location's weight grows with the square root of the ratio.
    assert (weights[0, 0, 0, :2] / weights[0, 0, 0, 7]).tolist() == pytest.approx([48**0.5] * 2)


def test_unless_it_is_evened_an_error_costs_the_same_everywhere(batch) -> None:
    true = torch.zeros(1, 4, 8, 8)

    def costs(evened: bool) -> list[float]:
        """Of one wrong latent in the head, and in the background."""
        wrong = [true.clone() for _ in range(2)]
        wrong[0][0, 0, 0, 0] = wrong[1][0, 0, 0, 7] = 8
        return [velocity_loss(predicted, true, batch, evened).item() for predicted in wrong]

    assert costs(evened=False) == [64 / 256] * 2
    head, background = costs(evened=True)
    assert head / background == pytest.approx(48**0.5)


def test_spread_counts_details_with_their_hosts(batch) -> None:
    spread = batch.spread()
    assert spread.shape == (1, len(LABELS), 2, 2)
    assert spread[0, HEAD].tolist() == [[1, 0], [0, 0]]
    assert spread[0, BODY].flatten().tolist() == pytest.approx([6 / 14, 0, 8 / 14, 0])
    assert spread[0].sum((1, 2)).tolist() == pytest.approx([float(m in (0, BODY, HEAD)) for m in range(len(LABELS))])


def test_grounding_by_hand(batch) -> None:
    """Every noun gets half of the attention everywhere: -log(1/2) for body and background, whatever their areas."""
    even = torch.full((1, len(LABELS), 2, 2), 0.5)
    assert grounding_loss(even, batch).item() == pytest.approx(np.log(2))
    even[0, BODY, :, 0] = 0.25  # the left column, where all of the body is
    assert grounding_loss(even, batch).item() == pytest.approx((np.log(4) + np.log(2)) / 2)


def test_reading_by_hand(batch) -> None:
    """Evenly spread guesses cost a logarithm of their number: of labels and places for the background, of labels,
    styles and colours for a part."""
    counts = [len(names) for names in (LABELS, PLACES, STYLES, COLOURS)]
    labels, places, styles, colours = np.log(counts)
    even = [torch.full((1, n, 2, 2), -np.log(n)) for n in counts]
    expected = (labels + places + 2 * (labels + styles + colours)) / 3
    assert reading_loss(tuple(even), batch).item() == pytest.approx(expected, abs=1e-5)
    even[3][:, COLOURS.index("red")] = 0.0  # certain of red: right for the head alone
    assert reading_loss(tuple(even), batch).item() == pytest.approx(expected - colours / 3, abs=1e-5)


def test_examples_are_pictures_at_the_resolution_of_latents(pictures, tmp_path) -> None:
    latents = np.random.default_rng(0).standard_normal((40, 4, 64, 64)).astype(np.float16)
    captions = Captions(pictures, build_tokenizer(tmp_path))
    rows = np.array([3, 8])
    for side in (32, 64):
        drawn = Examples(pictures, latents, captions, side).draw(rows, np.random.default_rng(0))
        assert drawn.clean.shape == (2, 4, side, side)
        step, block = 128 // side, 64 // side
        assert np.array_equal(drawn.details, pictures.details[rows][:, step // 2 :: step, step // 2 :: step])
        blocks = torch.from_numpy(latents[rows]).float().unfold(2, block, block).unfold(3, block, block)
        torch.testing.assert_close(drawn.clean, blocks.mean((4, 5)))


class Blank:
    """Examples of nothing."""

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> CaptionedBatch:
        n = len(rows)
        self.rows = rows
        ints = {"dtype": torch.int64}
        return CaptionedBatch(
            *(torch.zeros(n, 4, 8, 8), torch.zeros(n, 8, 8, **ints), torch.zeros(n, len(LABELS), 2, **ints)),
            *(torch.zeros(n, 9, **ints), torch.zeros(n, len(LABELS), **ints)),
        )


def test_a_step_s_timesteps_lie_in_even_strata_and_held_back_pictures_are_not_shown() -> None:
    examples = Blank()
    schooling = Schooling(0, (0, 0), (0, 0), (0, 0), seed=3, device="cpu", precision=torch.float32)
    lessons = _Lessons(nn.Identity(), None, examples, schooling, evened=True)
    drawn = [lessons.draw(8, step, size=20, count=400)[1:] for step in range(20)]
    for timesteps, _ in drawn:
        assert sorted(timesteps.numpy() // 50) == list(range(20))
    assert len({tuple(timesteps.tolist()) for timesteps, _ in drawn}) == 20
    assert len({timesteps[0].item() // 50 for timesteps, _ in drawn}) > 5  # no picture has a stratum of its own
    assert examples.rows.min() >= 256
    timesteps, noise = lessons.draw(8, 19, size=20, count=400)[1:]
    assert torch.equal(timesteps, drawn[19][0]) and torch.equal(noise, drawn[19][1])
    _, middle, _ = lessons.held_back(64, 32)
    assert examples.rows.tolist() == list(range(64, 96))
    assert middle.tolist() == [500] * 32


# --- Fitting


class Network(nn.Module):
    """What Muon takes, a matrix and a kernel, and what it does not: an embedding, norms, biases, a narrow matrix."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 16)
        self.inner = nn.Linear(16, 32)
        self.norm = nn.LayerNorm(32)
        self.kernel = nn.Conv1d(32, 16, 3, padding=1)
        self.outer = nn.Linear(16, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.inner(self.embedding(ids))).relu()
        return self.outer(self.kernel(hidden.transpose(1, 2)).transpose(1, 2)).mean((1, 2))


def ids_of(step: int) -> torch.Tensor:
    return torch.from_numpy(numpy_generator(0, "ids", step).integers(0, 20, (8, 5)))


def loss_for(network: Network):
    return lambda ids: (network(ids) - ids.float().mean(1) / 10).square().mean()


def weights_of(network: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(network.parameters())


SETTINGS = {"steps": 20, "learning_rate": 0.01, "checkpoint_every": 5}


def test_an_interrupted_fit_ends_where_an_unbroken_one_does(tmp_path) -> None:
    def stopping(network: Network):
        loss, taken = loss_for(network), []

        def loss_of(ids: torch.Tensor) -> torch.Tensor:
            taken.append(ids)
            if len(taken) == 14:
                raise KeyboardInterrupt
            return loss(ids)

        return loss_of

    whole, broken, again = Network(), Network(), Network()
    fit(whole, ids_of, loss_for(whole), tmp_path / "whole", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, ids_of, stopping(broken), tmp_path / "broken", **SETTINGS)
    drawn = []
    fit(again, lambda step: (drawn.append(step), ids_of(step))[1], loss_for(again), tmp_path / "broken", **SETTINGS)
    assert sorted(drawn) == list(range(10, 20))
    assert torch.equal(weights_of(whole), weights_of(again))
    assert not torch.equal(weights_of(whole), weights_of(Network()))


def test_batches_drawn_ahead_come_in_the_order_of_their_steps(tmp_path) -> None:
    """Though threads draw them, and the second is there before the first."""
    second_is_there = Event()

    def draw(step: int) -> tuple[int, torch.Tensor]:
        if step == 0:
            assert second_is_there.wait(60)
        if step == 1:
            second_is_there.set()
        return step, ids_of(step)

    network, seen = Network(), []
    loss = loss_for(network)

    def loss_of(batch: tuple[int, torch.Tensor]) -> torch.Tensor:
        seen.append(batch[0])
        return loss(batch[1])

    fit(network, draw, loss_of, tmp_path, **SETTINGS)
    assert seen == list(range(20))


def test_a_batch_that_cannot_be_drawn_ends_the_fit(tmp_path) -> None:
    network = Network()

    def draw(step: int) -> torch.Tensor:
        if step == 7:
            raise OSError("no such picture")
        return ids_of(step)

    with pytest.raises(OSError, match="no such picture"):
        fit(network, draw, loss_for(network), tmp_path, **SETTINGS)
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_checkpoints_show_the_averages_and_leave_the_weights(tmp_path) -> None:
    network, plain, shown = Network(), Network(), {}
    fit(
        network,
        ids_of,
        loss_for(network),
        tmp_path / "watched",
        on_checkpoint=lambda step, module: shown.update({step: weights_of(module).clone()}),
        **SETTINGS,
    )
    fit(plain, ids_of, loss_for(plain), tmp_path / "plain", **SETTINGS)
    assert list(shown) == [5, 10, 15, 20]
    assert torch.equal(weights_of(network), weights_of(plain))
    assert torch.equal(shown[20], weights_of(network))
    assert not torch.equal(shown[15], shown[20])
    assert not network.training


def test_frozen_weights_stay_and_need_no_moments(tmp_path) -> None:
    network = Network()
    network.embedding.requires_grad_(False)
    before = network.embedding.weight.clone()
    fit(network, ids_of, loss_for(network), tmp_path, **SETTINGS)
    assert torch.equal(network.embedding.weight, before)


def test_the_time_of_all_fits_is_summed_up(tmp_path) -> None:
    for name in ("one", "two"):
        network = Network()
        fit(network, ids_of, loss_for(network), tmp_path / name, **SETTINGS)
    rows = [line for log in tmp_path.rglob("losses.jsonl") for line in log.read_text().splitlines()]
    assert len(rows) == 8
    assert seconds_spent(tmp_path) == pytest.approx(sum(float(row.split('"seconds": ')[1][:-1]) for row in rows))


def test_one_step_is_that_of_torch_s_optimizers() -> None:
    ours, theirs = Network(), Network()
    for network in (ours, theirs):
        loss_for(network)(ids_of(0)).backward()
    optimizer = _Optimizer(ours, [name for name, _ in ours.named_parameters()], learning_rate=0.02, weight_decay=0.1)
    matrices = {"inner.weight", "kernel.weight"}
    flat = nn.Parameter(theirs.kernel.weight.detach().clone().flatten(1))
    flat.grad = theirs.kernel.weight.grad.flatten(1)
    muon = torch.optim.Muon(
        [theirs.inner.weight, flat], lr=0.5 * 3 * 0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    others = [parameter for name, parameter in theirs.named_parameters() if name not in matrices]
    adam = torch.optim.AdamW(others, lr=0.5 * 0.02, betas=(0.9, 0.99), weight_decay=0.1)
    before = weights_of(ours).clone()
    optimizer.step(0.5)
    muon.step()
    adam.step()
    with torch.no_grad():
        theirs.kernel.weight.copy_(flat.view_as(theirs.kernel.weight))
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    assert not torch.equal(weights_of(ours), before)


# --- What is shipped


def test_tiny_has_the_layers_of_the_paper() -> None:
    unet = load_base("tiny").unet
    assert len(attention_layers(unet)) == 5
    size = sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())
    assert size < 25 * 2**20


def test_tiny_s_tokenizer_is_the_one_that_its_worlds_need(tmp_path: Path) -> None:
    shipped, needed = load_base("tiny").tokenizer, build_tokenizer(tmp_path)
    text = ", ".join(world.describe(world.random_subject(np.random.default_rng(0))) for world in WORLDS.values())
    assert shipped(text).input_ids == needed(text).input_ids
