"""Catalog datasets of this project."""

from partcraft_kedro.datasets.folder import FolderDataset

__all__ = ["FolderDataset"]
