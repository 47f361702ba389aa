"""A Parquet table whose preview shows columns of lists, such as codes."""

import json
from io import BytesIO

import pandas as pd
from kedro_datasets._typing import TablePreview
from kedro_datasets.pandas import ParquetDataset

from partcraft_kedro.datasets.own import ReadsItsOwn


class TableDataset(ReadsItsOwn, ParquetDataset):
    """`pandas.ParquetDataset`; its own preview hands NumPy arrays to kedro-viz, which cannot write them."""

    def _encode(self, data: pd.DataFrame) -> bytes:
        buffer = BytesIO()
        data.to_parquet(buffer)
        return buffer.getvalue()

    def _decode(self, content: bytes) -> pd.DataFrame:
        return pd.read_parquet(BytesIO(content))

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows as plain lists."""
        return json.loads(self.load().head(nrows).to_json(orient="split", double_precision=4))
