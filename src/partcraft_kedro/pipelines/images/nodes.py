"""Pictures: fetched, drawn or read, then checked."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.drawn.dataset import draw_dataset
from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.errors import UserError
from partcraft_kedro.images import readers
from partcraft_kedro.images import records as library
from partcraft_kedro.options import DataOptions, ImagesOptions
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import Stage, fingerprint_of, read_file, write_file


def download_pictures(images: ImagesOptions, data: DataOptions) -> dict:
    """Fetch and unpack the publisher's archives; returns where they lie."""
    from partcraft_kedro.images.download import ARCHIVES, download

    if images.source not in ARCHIVES:
        raise UserError(f"images.source={images.source!r} has nothing to download: choose --env=cub, dogs or sims4.")
    download(ARCHIVES[images.source], data.layer("01_raw"))
    return {"folder": str(_folder(images, data))}


def read_pictures(images: ImagesOptions, data: DataOptions) -> pd.DataFrame:
    """Draw a world, or find it drawn; or read the records of photographs."""
    if images.source in WORLDS:
        return _draw_world(images, data)
    try:
        records = _read_photographs(_folder(images, data), images)
    except OSError as error:
        reason = f"{error.filename} cannot be read ({error.strerror})"
        raise UserError(f"{reason}: let it be read, or move it out of images.folder.") from error
    inside = data.folder.absolute()
    paths = [Path(path) for path in records["path"]]
    return records.assign(
        path=[(path.relative_to(inside) if path.is_relative_to(inside) else path).as_posix() for path in paths]
    )


def _read_photographs(folder: Path, images: ImagesOptions) -> pd.DataFrame:
    if images.source == "cub":
        return readers.read_cub(folder)
    if images.source == "dogs":
        return readers.read_dogs(folder)
    split = {"test_fraction": images.test_fraction, "seed": images.seed}
    if images.source == "sims4":
        labels = images.labels and images.labels.expanduser()
        return readers.read_sims4(folder, labels=labels, pictures_per_class=images.pictures_per_class, **split)
    return readers.read_folder(folder, **split)


def _folder(images: ImagesOptions, data: DataOptions) -> Path:
    """Where photographs lie: where the user says, or where `download_pictures` puts them."""
    raw = data.layer("01_raw")
    return (images.folder or (raw / "CUB_200_2011" if images.source == "cub" else raw)).absolute()


def _draw_world(images: ImagesOptions, data: DataOptions) -> pd.DataFrame:
    options = images.model_dump(include={"classes", "pictures_per_class", "test_fraction", "seed"})
    key = options | {"world": images.source}
    with Stage(data.layer("01_raw"), "pictures", version=2, options=key, inputs={}) as stage:
        table = stage.folder / "records.parquet"
        if not stage.finished:
            records = draw_dataset(images.source, stage.folder, data.folder, **options)
            write_file(table, records.to_parquet)
            stage.finish()
    return read_file(table, pd.read_parquet)


def check_pictures(
    all_records: pd.DataFrame, images: ImagesOptions, data: DataOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every picture once, unless the same bytes have been checked; broken ones go to the quarantine table."""
    hashed = all_records.assign(sha256=library.hash_pictures(all_records, data.folder))
    with Stage(
        data.layer("02_intermediate"),
        "checked",
        version=1,
        options=images.model_dump(include={"worst_broken_share"}),
        inputs={"records": fingerprint_of(hashed)},
    ) as stage:
        kept, broken = stage.folder / "records.parquet", stage.folder / "quarantine.parquet"
        if not stage.finished:
            records, quarantine = library.check_pictures(hashed, data.folder, images.worst_broken_share)
            write_file(kept, records.to_parquet)
            write_file(broken, quarantine.to_parquet)
            stage.finish()
    records = read_file(kept, pd.read_parquet)
    if not (records["split"] == "train").any():
        raise UserError(
            f"None of {len(records)} whole pictures is there to learn from: give a smaller images.test_fraction, which "
            f"is {images.test_fraction:g}, or more pictures."
        )
    return records, read_file(broken, pd.read_parquet)


def draw_contact_sheet(records: pd.DataFrame, quarantine: pd.DataFrame, data: DataOptions) -> Figure:
    """Pictures of every class, with what was found out about them."""
    from partcraft_kedro.images.contact_sheet import draw_contact_sheet as draw

    order = numpy_generator(0, "contact sheet").permutation(len(records))
    return draw(records.iloc[order], quarantine, data.folder)
