"""What the stages of pictures compute."""

from pathlib import Path

import pandas as pd

from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.files import write_file
from partcraft_kedro.images.records import examine_pictures
from partcraft_kedro.stages import StageRef


def drawing(
    place: StageRef,
    *,
    world: str,
    classes: int,
    pictures_per_class: int,
    test_fraction: float,
    seed: int,
    root: Path,
) -> None:
    """Writes pictures, masks and `records.parquet`."""
    records = draw_dataset(
        world,
        place.folder,
        root,
        classes=classes,
        pictures_per_class=pictures_per_class,
        test_fraction=test_fraction,
        seed=seed,
    )
    write_file(place.folder / "records.parquet", records.to_parquet)


def checking(place: StageRef, *, records: pd.DataFrame, max_broken_share: float, root: Path) -> None:
    """Writes `records.parquet` and `quarantine.parquet`."""
    kept, broken = examine_pictures(records, root, max_broken_share)
    write_file(place.folder / "records.parquet", kept.to_parquet)
    write_file(place.folder / "quarantine.parquet", broken.to_parquet)
