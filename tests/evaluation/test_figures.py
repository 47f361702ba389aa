import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from partcraft_kedro.evaluation.figures import (
    Composition,
    Source,
    compositions_figure,
    losses_figure,
    scores_figure,
    transfers_figure,
)
from partcraft_kedro.figure_style import HEIGHT, WIDTH

MASK = np.eye(4, dtype=bool)
RED = "#ff0000"


def grey(value):
    return np.full((8, 8, 3), value, np.uint8)


def shown_in(figure):
    """The grey of each picture, in the order in which they were drawn."""
    return [int(axis.images[0].get_array()[0, 0, 0]) for axis in figure.axes]


def outlined_in(figure):
    """The greys of the pictures that have a line, with its colour."""
    return {
        int(axis.images[0].get_array()[0, 0, 0]): tuple(line.get_edgecolor()[0, :3])
        for axis in figure.axes
        for line in axis.collections
    }


def told_in(figure):
    return [text.get_text() for text in figure.texts]


def composition(sources, asked, made, emr):
    lent = [Source(grey(value), f"+ part {value}", [(RED, MASK)]) for value in sources[1:]]
    scores = {"emr": emr, "prompt": "a photo of a [0,1] $x$"}
    return Composition([Source(grey(sources[0]), "base"), *lent], asked, made, scores)


@pytest.mark.parametrize("known", [False, True])
def test_compositions_stand_beside_their_sources_and_what_was_asked_for(known):
    asked = [grey(8), grey(9)] if known else [None, None]
    blocks = [composition([1, 2], asked[0], grey(6), 0.5), composition([3, 4, 5], asked[1], grey(7), 1.0)]
    figure = compositions_figure(blocks)
    assert shown_in(figure) == ([1, 2, 8, 6, 3, 4, 5, 9, 7] if known else [1, 2, 6, 3, 4, 5, 7])
    assert outlined_in(figure) == dict.fromkeys((2, 4, 5), to_rgb(RED))
    told = told_in(figure)[1:]
    first = ["base", "+ part 2", *["asked for"][:known], "composed, EMR 0.50", "a photo of a [0,1] $x$"]
    assert told[: len(first)] == first and "composed, EMR 1.00" in told


def test_pictures_of_a_composition_do_not_lie_on_each_other():
    figure = compositions_figure([composition([1, 2, 3, 4][:n], grey(8), grey(6), 0.5) for n in (2, 3, 4) * 3])
    taken = np.zeros((HEIGHT, WIDTH), int)
    for axis in figure.axes:
        place = axis.get_position()
        rows = slice(round((1 - place.y1) * HEIGHT), round((1 - place.y0) * HEIGHT))
        taken[rows, round(place.x0 * WIDTH) : round(place.x1 * WIDTH)] += 1
    assert taken.max() == 1 and taken[0].max() == 0


def test_without_compositions_the_figure_says_so():
    assert "No compositions" in told_in(compositions_figure([]))[0]


def test_transfers_stand_beside_their_pairs():
    pairs = [(Source(grey(a), "A"), Source(grey(b), "B", [(RED, MASK)])) for a, b in ((1, 2), (3, 4))]
    made = np.arange(5, 11, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((8, 8, 3), np.uint8)
    figure = transfers_figure(pairs, made, ["hair", "eyes", "hair and eyes"])
    assert shown_in(figure) == [1, 2, 5, 6, 7, 3, 4, 8, 9, 10]
    assert set(outlined_in(figure)) == {2, 4}
    titles = [text.replace("\n", " ") for text in told_in(figure)[1:6]]
    assert titles == ["A", "B", "A with hair of B", "A with eyes of B", "A with hair and eyes of B"]


def test_without_transfers_the_figure_says_so():
    assert "No transfers" in told_in(transfers_figure([], np.empty((0, 0, 8, 8, 3), np.uint8), []))[0]


def test_scores_stand_between_floor_and_ceiling():
    bounds = {"low": 0.97, "high": 0.995, "ceiling": 1.0, "floor": 0.88}
    rows = [
        {"task": task, "measure": "cosim", "value": 0.99, **bounds} for task in ("reconstruction", "composition of 2")
    ]
    rows[1] |= {"floor": np.nan}
    (axis,) = scores_figure(pd.DataFrame(rows)).axes
    bar = axis.patches[0]
    assert (bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2) == pytest.approx((0.88, 0.12, 1))
    left, right = axis.get_xlim()
    assert 0.85 < left < 0.88 and 1 < right < 1.03  # neither cut off nor lost in the range from 0
    assert [label.get_text() for label in axis.get_yticklabels()] == ["composition of 2 pictures", "reconstruction"]


def test_losses_are_drawn_with_their_running_mean():
    steps = np.arange(40)
    history = pd.DataFrame({"step": steps, "loss_ldm": steps % 2, "loss_attention": 1.0, "attention_inside": 0.5})
    raw, mean = losses_figure(history).axes[0].lines
    assert raw.get_ydata().tolist() == (steps % 2).tolist() and mean.get_ydata()[20] == pytest.approx(0.5)
    (*_, held_out), *others = (axis.lines for axis in losses_figure(history.assign(validation_loss_ldm=0.25)).axes)
    assert held_out.get_ydata().tolist() == [0.25] * 40 and [len(lines) for lines in others] == [2, 2]
