"""A Parquet table whose preview shows columns of lists, such as codes."""

import json
from io import BytesIO

import numpy as np
import pandas as pd
from kedro_datasets._typing import TablePreview
from kedro_datasets.pandas import ParquetDataset

from partcraft_kedro.datasets.own import ReadsItsOwn, if_it_is_there


class TableDataset(ReadsItsOwn, ParquetDataset):
    """`pandas.ParquetDataset`; its own preview hands NumPy arrays to kedro-viz, which cannot write them."""

    def _encode(self, data: pd.DataFrame) -> bytes:
        buffer = BytesIO()
        data.to_parquet(buffer)
        return buffer.getvalue()

    def _decode(self, content: bytes) -> pd.DataFrame:
        return pd.read_parquet(BytesIO(content))

    @if_it_is_there
    def preview(self, nrows: int = 5, by: str | None = None, columns: list[str] | None = None) -> TablePreview:
        """The first rows as plain lists or, by a column, the best and the worst; of some columns, or of all."""
        table = self.load()
        if by:
            table = table.sort_values(by, ascending=False, kind="stable")
            table = (
                table.iloc[np.r_[0 : nrows // 2, len(table) - nrows // 2 : len(table)]] if len(table) > nrows else table
            )
        shown = table.head(nrows)[[name for name in columns or table if name in table]]
        return json.loads(shown.to_json(orient="split", double_precision=4))
