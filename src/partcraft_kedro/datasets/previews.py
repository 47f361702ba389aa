"""What kedro-viz shows of a dataset. It takes the kind of a preview from the method's annotation."""

import base64
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import plotly.graph_objects as go
from kedro_datasets._typing import HTMLPreview, ImagePreview, PlotlyPreview
from markdown_it import MarkdownIt
from PIL import Image, ImageColor

from partcraft_kedro.datasets.folder import FolderDataset
from partcraft_kedro.datasets.own import if_it_is_there
from partcraft_kedro.datasets.stages import StageRefDataset
from partcraft_kedro.datasets.table import TableDataset
from partcraft_kedro.figure_style import COLOURS, part_colours
from partcraft_kedro.parts.label_maps import load_label_maps

_ACROSS, _DOWN = 9, 6  # pictures of a contact sheet: 3:2
_SIDE = 128  # pixels of one


class ModelCardDataset(FolderDataset):
    """A folder with a model card, README.md."""

    @if_it_is_there
    def preview(self) -> HTMLPreview:
        """The card without its machine-readable head."""
        card = (self.load() / "README.md").read_text()
        text = card.split("---\n", 2)[2] if card.startswith("---\n") else card
        return HTMLPreview(MarkdownIt().enable("table").render(text))


class LabelMapsDataset(FolderDataset):
    """A folder of label maps."""

    @if_it_is_there
    def preview(self) -> ImagePreview:
        """The maps of some pictures from all of them, in the parts' colours."""
        label_maps = load_label_maps(self.load())
        palette = [value for colour in part_colours(256) for value in ImageColor.getrgb(colour)]
        pictures = []
        for label_map in label_maps[:: max(1, len(label_maps) // (_ACROSS * _DOWN))]:
            picture = Image.fromarray(label_map, "P")
            picture.putpalette(palette)
            pictures.append(picture.convert("RGB"))
        return _contact_sheet(pictures, Image.Resampling.NEAREST)


class PicturesDataset(StageRefDataset):
    """A stage that has left pictures."""

    @if_it_is_there
    def preview(self) -> ImagePreview:
        """Some of all its pictures."""
        paths = sorted(self.load().folder.glob("*.png"))
        return _contact_sheet(map(_open, paths[:: max(1, len(paths) // (_ACROSS * _DOWN))]), Image.Resampling.BICUBIC)


class CurvesDataset(TableDataset):
    """A table of values by step."""

    @if_it_is_there
    def preview(self, columns: list[str]) -> PlotlyPreview:
        """Each of the columns as a curve."""
        table = self.load()
        colours = (COLOURS[7], COLOURS[5], COLOURS[3])
        curves = [
            go.Scatter(x=table["step"].tolist(), y=table[name].tolist(), name=name.replace("_", " "), line_color=colour)
            for name, colour in zip(columns, colours, strict=False)
        ]
        return PlotlyPreview(go.Figure(curves, {"xaxis_title": "step"}).to_plotly_json())


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _contact_sheet(pictures: Iterable[Image.Image], resample: Image.Resampling) -> ImagePreview:
    """Pictures in rows, as PNG in base64: 3:2 if there are enough."""
    shown = list(pictures)[: _ACROSS * _DOWN]
    across = min(_ACROSS, max(1, len(shown)))
    sheet = Image.new("RGB", (across * _SIDE, max(1, -(-len(shown) // across)) * _SIDE), "white")
    for i, picture in enumerate(shown):
        small = picture.resize((_SIDE - 4, _SIDE - 4), resample)
        sheet.paste(small, (i % across * _SIDE + 2, i // across * _SIDE + 2))
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return ImagePreview(base64.b64encode(buffer.getvalue()).decode())
