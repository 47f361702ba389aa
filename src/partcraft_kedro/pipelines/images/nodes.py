"""Pictures: drawn, then checked."""

import pandas as pd

from partcraft_kedro.images import records as library
from partcraft_kedro.options import DataOptions, ImagesOptions
from partcraft_kedro.stages import Stage, write_file


def draw_creatures(images: ImagesOptions, data: DataOptions) -> pd.DataFrame:
    """Draw the creatures dataset, or find it drawn."""
    options = images.model_dump(exclude={"worst_broken_share"})
    stage = Stage(data.layer("01_raw"), "pictures", version=1, options=options, inputs={})
    table = stage.folder / "records.parquet"
    if not stage.finished:
        records = library.draw_creatures(stage.folder, data.folder, **options)
        write_file(table, records.to_parquet)
        stage.finish()
    return pd.read_parquet(table)


def check_pictures(
    drawn_records: pd.DataFrame, images: ImagesOptions, data: DataOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every picture once; broken ones go to the quarantine table."""
    return library.check_pictures(drawn_records, data.folder, images.worst_broken_share)
