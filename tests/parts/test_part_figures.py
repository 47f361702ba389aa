import numpy as np
import pytest
from matplotlib.colors import to_rgb

from partcraft_kedro.figure_style import HEIGHT, WIDTH, blocks, part_colours
from partcraft_kedro.parts.figures import part_maps_figure, variants_figure, worst_figure

# Machado, Oliveira & Fernandes 2009, severity 1, of linear RGB.
DEUTERANOPE = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
XYZ = [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]]  # of linear RGB, white: 1, 1, 1


def lab(colours, matrix):
    """CIELAB of colours as an eye with this matrix sees them."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.clip(linear @ np.array(matrix).T, 0, 1) @ np.array(XYZ).T).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("matrix", [np.eye(3), DEUTERANOPE])
def test_colours_of_parts_are_told_apart(matrix):
    """By at least 20 in CIELAB, where 2 can just be seen."""
    seen = lab(part_colours(9), matrix)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distances[~np.eye(9, dtype=bool)].min() > 20


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 32])
@pytest.mark.parametrize("wide", [1, 4, 6])
def test_blocks_lie_inside_the_figure_and_beside_each_other(count, wide):
    side, places = blocks(count, wide=wide, below=30, bottom=20)
    taken = np.zeros((HEIGHT, WIDTH), int)
    for x, y in places:
        assert min(x, y) >= 0 and x + wide * side <= WIDTH and y + side + 30 <= HEIGHT - 20
        taken[y : y + side + 30, x : x + wide * side] += 1
    assert taken.max() == 1


def texts(figure):
    """The texts of a figure with their places in pixels from the left upper corner."""
    return [(text.get_text(), text.get_position()[0] * WIDTH, (1 - text.get_position()[1]) * HEIGHT)
            for text in figure.texts]  # fmt: skip


def test_parts_are_outlined_and_named_where_they_are_and_their_code_is_below():
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 1:4, 1:4] = 2
    names = ["0 background", "1 head", "2 tail"]
    figure = part_maps_figure(np.zeros((1, 64, 64, 3), np.uint8), labels, np.array([[7, -1, 13]]), names)
    (axis,) = figure.axes
    (line,) = axis.collections
    assert line.get_edgecolor()[0, :3] == pytest.approx(to_rgb(part_colours(3)[2]))
    points = line.get_paths()[0].vertices
    assert points.min() >= 7.5 and points.max() <= 31.5  # patches of 8 pixels, from the second to the fourth
    left, bottom, width, _ = axis.get_position().bounds
    told = texts(figure)
    # Where the part is deepest: its middle patch, of eight from edge to edge.
    (inside,) = [place for place in told if place[0] == "2 tail" and place[2] < HEIGHT - 40]
    top = (1 - axis.get_position().y1) * HEIGHT
    assert inside[1:] == pytest.approx(((left + 2.5 / 8 * width) * WIDTH, top + 2.5 / 8 * width * WIDTH))
    code = [(text, x) for text, x, y in told if (1 - bottom) * HEIGHT < y < HEIGHT - 40]
    assert [text for text, _ in code] == ["7", "–", "13"]
    boxes = [text.get_bbox_patch().get_facecolor()[:3] for text in figure.texts if text.get_text() in ("7", "–", "13")]
    assert boxes == [to_rgb(colour) for colour in part_colours(3)]


def test_the_worst_pictures_stand_in_rows_with_what_is_wrong():
    labels = np.zeros((4, 4), np.uint8)
    labels[1:3, 1:3] = 1
    picture = np.zeros((8, 8, 3), np.uint8)
    rows = [("small", [(picture, labels, "12%")] * 6), ("missing", [(picture, labels * 0, "no head")])]
    figure = worst_figure(rows, ["background", "head"])
    assert [len(axis.collections) for axis in figure.axes] == [1] * 6 + [0]
    taken = np.zeros((HEIGHT, WIDTH), int)
    for axis in figure.axes:
        place = axis.get_position()
        rows = slice(round((1 - place.y1) * HEIGHT), round((1 - place.y0) * HEIGHT))
        taken[rows, round(place.x0 * WIDTH) : round(place.x1 * WIDTH)] += 1
    assert taken.max() == 1
    told = texts(figure)
    assert [text for text, *_ in told[1:]] == ["small", *["12%"] * 6, "missing", "no head", "background", "head"]
    assert not any(taken[int(y)].any() for _, _, y in told)  # beside the pictures, not on them
    alone = [axis.get_position() for axis in worst_figure([("", [(picture, labels, "")] * 6)], ["a", "b"]).axes]
    assert min(place.x0 for place in alone) >= 0 and max(place.x1 for place in alone) <= 1


def test_a_sheet_shows_every_crop_and_name():
    black = np.zeros((3, 3, 3), np.uint8)
    sheets = [("1 head", [("[1,7]", [black] * 2), ("[1,0]", [black])]), ("2 tail", [("[2,3]", [black] * 3)])]
    figure = variants_figure(sheets, 3)
    told = texts(figure)
    assert [text for text, *_ in told[1:]] == ["1 head", "[1,7]", "[1,0]", "2 tail", "[2,3]"]
    shown = []
    for axis in figure.axes:
        canvas = axis.images[0].get_array()
        cell = len(canvas) // 3
        shown.append((canvas[cell // 2 :: cell, cell // 2 :: cell, 0] == 0)[:2].tolist())
    assert shown == [[[True, True, False], [True, False, False]], [[True, True, True], [False, False, False]]]
