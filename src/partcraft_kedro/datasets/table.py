"""A Parquet table whose preview shows columns of lists, such as codes."""

import json

from kedro_datasets._typing import TablePreview
from kedro_datasets.pandas import ParquetDataset


class TableDataset(ParquetDataset):
    """`pandas.ParquetDataset`; its own preview hands NumPy arrays to kedro-viz, which cannot write them."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows as plain lists."""
        return json.loads(self.load().head(nrows).to_json(orient="split", double_precision=4))
