"""Opening a finished run from Python: for notebooks, scripts and the page."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog

from partcraft_kedro.compose.palette import AdapterPalette, DatasetPalette, Palette
from partcraft_kedro.compose.studio import Studio
from partcraft_kedro.datasets import FolderDataset
from partcraft_kedro.errors import UserError
from partcraft_kedro.export.finding import find_adapter
from partcraft_kedro.images.decoding import load_pictures
from partcraft_kedro.options import refuse_unknown_groups
from partcraft_kedro.parts.label_maps import load_label_maps
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.parts.sheet import PARTS, read_sheet
from partcraft_kedro.project import project_folder, stages_of_outputs


class Project:
    """What the runs of an environment left behind: tables, pictures, and a studio that makes more of them.

    catalog: all else that there is; env: of the runs, None for drawn creatures; experiment: MLflow's, which has them.
    """

    def __init__(self, catalog: DataCatalog, env: str | None, experiment: str):
        self.catalog, self.experiment = catalog, experiment
        self._of_environment = f" --env={env}" if env else ""

    def load(self, name: str) -> Any:
        """A dataset of the catalog. Raises UserError if no run has made it yet."""
        stage = stages_of_outputs().get(name)
        if stage and not self.catalog.exists(name):
            raise UserError(f"There is no {name} yet: run `kedro run --pipelines={stage}{self._of_environment}`.")
        return self.catalog.load(name)

    @cached_property
    def names(self) -> list[str]:
        """Of the parts, the background first."""
        return list(self.load("part_names").values())

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each picture, by its id: what is known of it, and `code` and `cosine`, (M+1,) each."""
        return self.load("records").merge(self.load("codes"), on="id").set_index("id")

    @cached_property
    def studio(self) -> Studio:
        """The newest adapter at work: see `Studio.make`. Raises UserError if there is none yet."""
        self.load("adapter")
        return open_studio(self.catalog)

    def pictures(self, ids: Sequence[str], size: int = 128) -> np.ndarray:
        """Pictures of the dataset, their centre squares: (n, size, size, 3) uint8."""
        root = self.load("params:stages").root
        return load_pictures([root / path for path in self.table["path"][list(ids)]], size)

    def runs(self) -> pd.DataFrame:
        """The runs in MLflow, the oldest first, as `mlflow.search_runs` tells them.

        Raises UserError if none of them has been evaluated.
        """
        import mlflow

        experiment = mlflow.get_experiment_by_name(self.experiment)
        runs = mlflow.search_runs([experiment.experiment_id], order_by=["start_time ASC"]) if experiment else ()
        if "metrics.emr/reconstruction" not in runs:
            raise UserError(
                f"No run of {self.experiment} has been evaluated yet: run `kedro run{self._of_environment}`."
            )
        return runs


def open_project(env: str | None = None) -> Project:
    """What was found, trained and measured so far.

    env: as in `kedro run --env=cub`; None: what PARTCRAFT_ENV names, or drawn creatures.

    Example:
        ```python
        project = open_project()
        [made] = project.studio.make("a photo of a <head:3> <wing:7>", seed=1)
        made.picture.save("mine.png")
        print(made.arrived)
        ```
    """
    env = env or os.environ.get("PARTCRAFT_ENV")
    context, catalog = _open(env, None)
    return Project(catalog, env, context.mlflow.tracking.experiment.name)  # FlatMlflowHook puts it there


def open_catalog(env: str | None = None, params: dict[str, Any] | None = None) -> DataCatalog:
    """What the last runs of an environment left behind.

    env: as in `kedro run --env=cub`, None for drawn creatures; params: as in `kedro run --params`, as a tree.
    Raises UserError for a group of options that there is not.
    """
    return _open(env, params)[1]


def _open(env: str | None, params: dict[str, Any] | None) -> tuple[Any, DataCatalog]:
    """Kedro's context, with what hooks have put there, and its catalog."""
    bootstrap_project(project_folder())
    session = KedroSession.create(env=env, runtime_params=params)
    with session:
        context = session.load_context()
        catalog = context.catalog
    assert isinstance(catalog, DataCatalog)  # unless settings.py names another class
    refuse_unknown_groups(catalog.load("parameters"))
    return context, catalog


def open_studio(catalog: DataCatalog, adapter: str | None = None) -> Studio:
    """What was found and trained, ready to make pictures with.

    adapter: a version, or the folder of an adapter or an export, or the hub id of an export; None: the newest, if there
    is one. One that was trained on other parts than were found here, or where none were, brings its own.
    Raises UserError if there are neither parts nor an adapter yet, or if there is no such adapter.

    Example:
        ```python
        studio = open_studio(open_catalog(), "me/birds")
        [made] = studio.make("a photo of a <head:3> <wing:7>", seed=1)
        made.picture.save("mine.png")
        print(made.arrived)
        ```
    """
    parameters, versions = catalog.load("parameters"), adapters_of(catalog)
    base, chosen = parameters["base"], choose_adapter(versions, adapter)
    predictor = _found_parts(catalog, base.device)
    palette: Palette | None = _palette_of_dataset(catalog, predictor) if predictor else None
    if chosen and (adapter or not predictor):
        sheet = read_sheet(chosen / PARTS)
        own = PartPredictor.load(sheet.folder, base.device, parameters["features"].model)
        if not predictor or own.fingerprint != predictor.fingerprint:
            predictor, palette = own, AdapterPalette(sheet, own)
    if not (predictor and palette):
        raise UserError(
            "No parts have been discovered yet: run `kedro run --pipelines=parts` first, with the same --env."
        )
    return Studio(palette, predictor, base, parameters["generate"].sampling, chosen, versions)


def _found_parts(catalog: DataCatalog, device: str) -> PartPredictor | None:
    """The predictor of the parts that were found last; None where there is not all that a palette needs."""
    if not all(map(catalog.exists, ("records", "codes", "part_masks", "part_predictor", "part_names"))):
        return None
    return PartPredictor.load(catalog.load("part_predictor"), device)


def _palette_of_dataset(catalog: DataCatalog, predictor: PartPredictor) -> DatasetPalette:
    return DatasetPalette(
        catalog.load("records"),
        catalog.load("codes"),
        load_label_maps(catalog.load("part_masks")),
        predictor,
        list(catalog.load("part_names").values()),
        catalog.load("params:stages").root,
    )


def adapters_of(catalog: DataCatalog) -> dict[str, Path]:
    """The folders of all versions of the adapter, the oldest first."""
    adapters = catalog.get("adapter")
    assert isinstance(adapters, FolderDataset)  # says the catalog
    return adapters.versions()


def choose_adapter(versions: dict[str, Path], asked: str | None) -> Path | None:
    """The folder of an adapter. asked: as in `find_adapter`; None: the newest version, if there is one."""
    return find_adapter(versions, asked) if asked else next(reversed(versions.values()), None)
