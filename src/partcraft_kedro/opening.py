"""Opening a finished run from Python: for notebooks, scripts and the page."""

from pathlib import Path
from typing import Any

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog

from partcraft_kedro.compose.palette import Palette
from partcraft_kedro.compose.studio import Studio
from partcraft_kedro.datasets import FolderDataset
from partcraft_kedro.errors import UserError, unknown
from partcraft_kedro.options import refuse_unknown_groups
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.project import project_folder


def open_catalog(env: str | None = None, params: dict[str, Any] | None = None) -> DataCatalog:
    """What the last runs of an environment left behind.

    env: as in `kedro run --env=cub`, None for drawn creatures; params: as in `kedro run --params`, as a tree.
    Raises UserError for a group of options that there is not.
    """
    bootstrap_project(project_folder())
    session = KedroSession.create(env=env, runtime_params=params)
    with session:
        catalog = session.load_context().catalog
    assert isinstance(catalog, DataCatalog)  # unless settings.py names another class
    refuse_unknown_groups(catalog.load("parameters"))
    return catalog


def open_studio(catalog: DataCatalog, adapter: str | None = None) -> Studio:
    """What was found and trained, ready to make pictures with.

    adapter: a version, or a folder with an adapter for the same parts; None: the newest, if there is one.
    Raises UserError if no parts have been discovered yet, or if there is no such adapter.

    Example:
        ```python
        studio = open_studio(open_catalog())
        [made] = studio.make("a photo of a <head:3> <wing:7>", seed=1)
        made.picture.save("mine.png")
        print(made.arrived)
        ```
    """
    if not all(map(catalog.exists, ("records", "codes", "part_masks", "part_predictor", "part_names"))):
        raise UserError(
            "No parts have been discovered yet: run `kedro run --pipelines=parts` first, with the same --env."
        )
    parameters = catalog.load("parameters")
    predictor = PartPredictor.load(catalog.load("part_predictor"), parameters["base"].device)
    palette = Palette(
        catalog.load("records"),
        catalog.load("codes"),
        load_label_maps(catalog.load("part_masks")),
        predictor,
        list(catalog.load("part_names").values()),
        catalog.load("params:stages").root,
    )
    versions = adapters_of(catalog)
    sampling = parameters["generate"].sampling
    return Studio(palette, predictor, parameters["base"], sampling, choose_adapter(versions, adapter), versions)


def adapters_of(catalog: DataCatalog) -> dict[str, Path]:
    """The folders of all versions of the adapter, the oldest first."""
    adapters = catalog.get("adapter")
    assert isinstance(adapters, FolderDataset)  # says the catalog
    return adapters.versions()


def choose_adapter(versions: dict[str, Path], asked: str | None) -> Path | None:
    """The folder of an adapter. asked: a version, or a folder with an adapter; None: the newest, if there is one.

    Raises UserError if it is neither.
    """
    if asked is None:
        return next(reversed(versions.values()), None)
    folder = Path(asked).expanduser()
    if asked in versions or (folder / "adapter.json").exists():
        return versions.get(asked, folder)
    raise unknown("adapter version or folder", asked, versions)
