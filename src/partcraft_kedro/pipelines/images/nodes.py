"""Pictures: fetched, drawn or read, then checked."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from partcraft_kedro.drawn.worlds import WORLDS
from partcraft_kedro.errors import UserError
from partcraft_kedro.images import contact_sheet, readers
from partcraft_kedro.images.download import ARCHIVES, download
from partcraft_kedro.images.records import hash_pictures
from partcraft_kedro.options import ImagesOptions
from partcraft_kedro.randomness import numpy_generator
from partcraft_kedro.stages import Stage, Stages

_WORK = "partcraft_kedro.pipelines.images.work"
DRAWING = Stage("drawings", "01_raw", version=3, work=f"{_WORK}.drawing")
CHECKING = Stage("checked", "02_intermediate", version=2, work=f"{_WORK}.checking")


def download_pictures(images: ImagesOptions, stages: Stages) -> dict:
    """Fetch and unpack the publisher's archives; returns where they lie."""
    if images.source not in ARCHIVES:
        raise UserError(f"images.source={images.source!r} has nothing to download: choose --env=cub, dogs or sims4.")
    download(ARCHIVES[images.source], stages.layer("01_raw"))
    return {"folder": str(_folder(images, stages))}


def read_pictures(images: ImagesOptions, stages: Stages) -> pd.DataFrame:
    """Draw a world, or find it drawn; or read the records of photographs."""
    if images.source in WORLDS:
        return _draw_world(images, stages)
    try:
        records = _read_photographs(_folder(images, stages), images)
    except OSError as error:
        reason = f"{error.filename} cannot be read ({error.strerror})"
        raise UserError(f"{reason}: let it be read, or move it out of images.folder.") from error
    inside = stages.root.absolute()
    paths = [Path(path) for path in records["path"]]
    return records.assign(
        path=[(path.relative_to(inside) if path.is_relative_to(inside) else path).as_posix() for path in paths]
    )


def _read_photographs(folder: Path, images: ImagesOptions) -> pd.DataFrame:
    if images.source == "cub":
        return readers.read_cub(folder)
    if images.source == "dogs":
        return readers.read_dogs(folder)
    if images.source == "sims4":
        labels = images.labels and images.labels.expanduser()
        return readers.read_sims4(
            folder,
            labels=labels,
            pictures_per_class=images.pictures_per_class,
            test_fraction=images.test_fraction,
            seed=images.seed,
        )
    return readers.read_folder(folder, test_fraction=images.test_fraction, seed=images.seed)


def _folder(images: ImagesOptions, stages: Stages) -> Path:
    """Where photographs lie: where the user says, or where `download_pictures` puts them."""
    raw = stages.layer("01_raw")
    return (images.folder or (raw / "CUB_200_2011" if images.source == "cub" else raw)).absolute()


def _draw_world(images: ImagesOptions, stages: Stages) -> pd.DataFrame:
    options = images.model_dump(include={"classes", "pictures_per_class", "test_fraction", "seed"})
    return stages.run(DRAWING, {"world": images.source, **options}, {"root": stages.root}).table("records")


def check_pictures(
    all_records: pd.DataFrame, images: ImagesOptions, stages: Stages
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode every picture once, unless the same bytes have been checked; broken ones go to the quarantine table."""
    hashed = all_records.assign(sha256=hash_pictures(all_records, stages.root))
    seen = {"records": hashed, "max_broken_share": images.max_broken_share}
    checked = stages.run(CHECKING, seen, {"root": stages.root})
    records = checked.table("records")
    if not (records["split"] == "train").any():
        raise UserError(
            f"None of {len(records)} whole pictures is there to learn from: give a smaller images.test_fraction, which "
            f"is {images.test_fraction:g}, or more pictures."
        )
    return records, checked.table("quarantine")


def draw_contact_sheet(records: pd.DataFrame, quarantine: pd.DataFrame, stages: Stages) -> Figure:
    """Pictures of every class, with what was found out about them."""
    order = numpy_generator(0, "contact sheet").permutation(len(records))
    return contact_sheet.contact_sheet_figure(records.iloc[order], quarantine, stages.root)
