import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from partcraft_kedro.evaluation.figures import scores_figure, swaps_figure
from partcraft_kedro.evaluation.swap_figures import Leak, Regions, leakage_figure, regions_figure
from partcraft_kedro.figure_style import HEIGHT, WIDTH, part_colours

NAMES = ["background", "head", "tail"]


def grey(value):
    return np.full((8, 8, 3), value, np.uint8)


def told_in(figure):
    return [text.get_text() for text in figure.texts]


def row(task, measure, value):
    return {"task": task, "measure": measure, "value": value, "low": 0.1, "high": 0.9, "ceiling": 1.0, "floor": 0.0}


def test_what_is_of_swaps_and_of_single_parts_has_a_figure_of_its_own():
    table = pd.DataFrame(
        [
            row("reconstruction", "emr", 0.5),
            row("reconstruction", "iou_found_mask", 0.5),
            row("composition of 2", "transfer", 0.4),
            row("part head", "transfer", 0.3),
            row("part 7", "leakage", 0.2),
            row("part head", "part_identity", 0.9),
        ]
    )
    assert [axis.get_title() for axis in scores_figure(table).axes] == ["EMR"]
    axes = swaps_figure(table).axes
    assert [axis.get_title() for axis in axes] == ["transfer", "leakage"]
    told = [label.get_text() for label in axes[0].get_yticklabels()]
    assert told == ["part 7", "head", "composition of 2 pictures"]
    places = [axes[0].collections[0].get_offsets()[:, 1].tolist(), axes[1].collections[0].get_offsets()[:, 1].tolist()]
    assert places == [[2, 1], [0]]
    assert "No part was swapped" in told_in(swaps_figure(table.head(2)))[0]


def test_leakage_stands_in_the_row_of_what_was_swapped_and_the_column_of_what_changed():
    shares, counts = np.full((3, 3), np.nan), np.zeros((3, 3), int)
    shares[1, 2], counts[1, 2] = 0.25, 8
    shares[2, 0], counts[2, 0] = 1.0, 3
    leaks = [Leak(grey(1), grey(2), ["head"], ["tail"]), Leak(grey(3), grey(4), ["tail"], ["background", "head"])]
    figure = leakage_figure(shares, counts, NAMES, leaks)
    table, *pictures = figure.axes
    assert table.images[0].get_array().mask.tolist() == np.isnan(shares).tolist()
    assert [int(axis.images[0].get_array()[0, 0, 0]) for axis in pictures] == [1, 2, 3, 4]
    place = table.get_position()
    (quarter,) = [text.get_position() for text in figure.texts if text.get_text() == "25%"]
    assert np.allclose(quarter, (place.x0 + 2.5 / 3 * place.width, place.y1 - 1.5 / 3 * place.height))
    told = told_in(figure)
    assert "another head\nalso changed: tail" in told and "another tail\nalso changed: background, head" in told
    assert any("3 to 8 pictures" in text for text in told)
    assert "No part was swapped alone" in told_in(leakage_figure(shares, counts * 0, NAMES, []))[0]


def test_pictures_of_leakage_lie_beside_the_table_and_each_other():
    leaks = [Leak(grey(1), grey(2), ["head"], ["tail"])] * 8
    figure = leakage_figure(np.full((3, 3), 0.5), np.ones((3, 3), int), NAMES, leaks)
    taken = np.zeros((HEIGHT, WIDTH), int)
    for axis in figure.axes:
        place = axis.get_position()
        rows = slice(round((1 - place.y1) * HEIGHT), round((1 - place.y0) * HEIGHT))
        taken[rows, round(place.x0 * WIDTH) : round(place.x1 * WIDTH)] += 1
    assert len(figure.axes) == 17 and taken.max() == 1 and taken[:30].max() == 0


def test_the_three_regions_of_parts_stand_beside_each_other():
    mask, looked, found = (np.zeros((4, 4), np.uint8) for _ in range(3))
    mask[1:3, 1:3], looked[0], found[2:, :2] = 1, 2, 1
    figure = regions_figure([Regions(grey(1), grey(2), mask, looked, found, "IoU 0.50")], NAMES)
    lines = [
        (int(axis.images[0].get_array()[0, 0, 0]), [tuple(line.get_edgecolor()[0, :3]) for line in axis.collections])
        for axis in figure.axes
    ]
    head, tail = (to_rgb(colour) for colour in part_colours(3)[1:])
    assert lines == [(1, [head]), (2, [tail]), (2, [head])]
    assert "IoU 0.50" in told_in(figure) and told_in(figure)[-3:] == NAMES
