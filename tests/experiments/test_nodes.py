import json

from partcraft_kedro.datasets import FigureDataset, PlotDataset
from partcraft_kedro.experiments.summary import summarise_seeds
from partcraft_kedro.pipelines.experiments.nodes import draw_learning, draw_own_sweep
from partcraft_kedro.stages import Stages


def test_a_sweep_whose_trainings_left_no_pictures_has_words_in_the_place_of_figures(methods, samples, tmp_path):
    drawn = draw_learning(methods[0], samples.iloc[:0], Stages(tmp_path, "creatures"))
    kinds = (FigureDataset, FigureDataset, PlotDataset)
    for number, (kind, figure) in enumerate(zip(kinds, drawn, strict=True)):
        kind(filepath=str(tmp_path / str(number))).save(figure)
    assert [text.get_text()[:21] for text in drawn[0].texts] == ["There are no pictures"]
    assert "There are no pictures" in json.loads((tmp_path / "2").read_text())["layout"]["title"]["text"]


def test_a_grid_of_ones_own_has_its_figures(methods, samples, tmp_path):
    points = methods[0].assign(sweep="grid-rank-0123456789abcdef")
    stages, learning, _ = draw_learning(points, samples, Stages(tmp_path, "creatures"))
    assert len(stages.axes) == 3 * 4 and len(learning.axes) == 2
    summary = summarise_seeds(points, methods[1], "creatures")
    assert [axis.get_title() for axis in draw_own_sweep(summary)[0].axes if axis.get_visible()] == [
        "EMR",
        "CoSim",
        "judge",
    ]
    for of_the_paper in ("methods", "methods-0123456789abcdef"):
        figure, _ = draw_own_sweep(summary.assign(sweep=of_the_paper))
        assert "No grid of your own" in figure.texts[0].get_text()
