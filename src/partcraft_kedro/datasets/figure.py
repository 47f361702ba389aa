"""Figures: Matplotlib's as PNG, Plotly's as JSON."""

from io import BytesIO

import plotly.io
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.plotly import JSONDataset
from matplotlib.figure import Figure
from PIL import Image
from plotly.graph_objects import Figure as PlotlyFigure

from partcraft_kedro.datasets.own import ReadsItsOwn, if_it_is_there


class FigureDataset(ReadsItsOwn, MatplotlibDataset):
    """`matplotlib.MatplotlibDataset`, read as the picture that was written."""

    preview = if_it_is_there(MatplotlibDataset.preview)

    def _encode(self, data: Figure) -> bytes:
        buffer = BytesIO()
        data.savefig(buffer, **self._save_args)
        return buffer.getvalue()

    def _decode(self, content: bytes) -> Image.Image:
        return Image.open(BytesIO(content))


class PlotDataset(ReadsItsOwn, JSONDataset):
    """`plotly.JSONDataset`, read as it was written."""

    preview = if_it_is_there(JSONDataset.preview)

    def _encode(self, data: PlotlyFigure) -> bytes:
        return data.to_json().encode()

    def _decode(self, content: bytes) -> PlotlyFigure:
        return plotly.io.from_json(content.decode())
