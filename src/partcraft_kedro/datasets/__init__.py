"""Catalog datasets of this project."""

from partcraft_kedro.datasets.adapter import AdapterDataset
from partcraft_kedro.datasets.document import DocumentDataset, EditableDataset, PageDataset
from partcraft_kedro.datasets.figure import FigureDataset, PlotDataset, unless_drawn
from partcraft_kedro.datasets.folder import FolderDataset
from partcraft_kedro.datasets.own import ReadsItsOwn
from partcraft_kedro.datasets.previews import (
    CurvesDataset,
    LabelMapsDataset,
    ModelCardDataset,
    PicturesDataset,
)
from partcraft_kedro.datasets.stages import StageRefDataset, StagesDataset
from partcraft_kedro.datasets.table import TableDataset

__all__ = [
    "AdapterDataset",
    "CurvesDataset",
    "DocumentDataset",
    "EditableDataset",
    "FigureDataset",
    "FolderDataset",
    "LabelMapsDataset",
    "ModelCardDataset",
    "PageDataset",
    "PicturesDataset",
    "PlotDataset",
    "ReadsItsOwn",
    "StageRefDataset",
    "StagesDataset",
    "TableDataset",
    "unless_drawn",
]
