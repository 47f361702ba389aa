import json

from partcraft_kedro.datasets import FigureDataset, PlotDataset
from partcraft_kedro.pipelines.experiments.nodes import draw_learning
from partcraft_kedro.stages import Stages


def test_a_sweep_whose_trainings_left_no_pictures_has_words_in_the_place_of_figures(methods, samples, tmp_path):
    drawn = draw_learning(methods[0], samples.iloc[:0], Stages(tmp_path, "creatures"))
    kinds = (FigureDataset, FigureDataset, PlotDataset)
    for number, (kind, figure) in enumerate(zip(kinds, drawn, strict=True)):
        kind(filepath=str(tmp_path / str(number))).save(figure)
    assert [text.get_text()[:21] for text in drawn[0].texts] == ["There are no pictures"]
    assert "There are no pictures" in json.loads((tmp_path / "2").read_text())["layout"]["title"]["text"]
