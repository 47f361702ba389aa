"""Figures: Matplotlib's as PNG, Plotly's as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from io import BytesIO
from pathlib import Path
from typing import Any

import plotly.io
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.plotly import JSONDataset
from matplotlib.figure import Figure
from PIL import Image
from plotly.graph_objects import Figure as PlotlyFigure

from partcraft_kedro.datasets.own import ReadsItsOwn, if_it_is_there
from partcraft_kedro.files import fingerprint_of
from partcraft_kedro.options import Options
from partcraft_kedro.stages import StageRef, Stages

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Drawing:
    """A figure that is still to be drawn. inputs: stands for all that it is drawn of, and for the code."""

    draw: Callable[[], Figure]
    inputs: str


def unless_drawn(draw: Callable[..., Figure]) -> Callable[..., Drawing]:
    """Of a node's function one whose figure is drawn only if that of the same inputs is not there yet."""

    @wraps(draw)
    def wrapped(*inputs: Any) -> Drawing:
        drawn_of = {"code": _code(), "node": draw.__name__, "inputs": [_content_of(value) for value in inputs]}
        return Drawing(lambda: draw(*inputs), fingerprint_of(drawn_of))

    return wrapped


def _content_of(value: Any) -> Any:
    if isinstance(value, StageRef):
        return value.fingerprint
    if isinstance(value, Stages):  # where pictures lie, whose content tables tell
        return None
    if isinstance(value, Options):
        return value.model_dump(mode="json")
    return fingerprint_of(value)


@cache
def _code() -> str:
    """Of the whole package: what a figure looks like lies in many places."""
    return fingerprint_of(
        {path.relative_to(_PACKAGE).as_posix(): fingerprint_of(path) for path in sorted(_PACKAGE.rglob("*.py"))}
    )


class FigureDataset(ReadsItsOwn, MatplotlibDataset):
    """`matplotlib.MatplotlibDataset`, read as the picture that was written; a `Drawing` is drawn if need be."""

    preview = if_it_is_there(MatplotlibDataset.preview)

    def _encode(self, data: Figure | Drawing) -> bytes:
        metadata = {}
        if isinstance(data, Drawing):
            metadata["Inputs"] = fingerprint_of({"inputs": data.inputs, "save_args": self._save_args})
            if self._drawn_of() == metadata["Inputs"]:
                return Path(self._filepath).read_bytes()
            data = data.draw()
        buffer = BytesIO()
        data.savefig(buffer, metadata=metadata, **self._save_args)
        return buffer.getvalue()

    def _drawn_of(self) -> str | None:
        """What the picture that is there says of itself."""
        try:
            with Image.open(Path(self._filepath)) as there:
                return there.info.get("Inputs")
        except OSError:  # none, or half of one
            return None

    def _decode(self, content: bytes) -> Image.Image:
        return Image.open(BytesIO(content))


class PlotDataset(ReadsItsOwn, JSONDataset):
    """`plotly.JSONDataset`, read as it was written."""

    preview = if_it_is_there(JSONDataset.preview)

    def _encode(self, data: PlotlyFigure) -> bytes:
        return data.to_json().encode()

    def _decode(self, content: bytes) -> PlotlyFigure:
        return plotly.io.from_json(content.decode())
