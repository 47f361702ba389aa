"""Catalog datasets of this project."""

from partcraft_kedro.datasets.document import DocumentDataset, EditableDataset
from partcraft_kedro.datasets.folder import FolderDataset
from partcraft_kedro.datasets.table import TableDataset

__all__ = ["DocumentDataset", "EditableDataset", "FolderDataset", "TableDataset"]
