"""Project settings. There is no need to edit this file unless you want to change Kedro's own behaviour."""

import warnings
from pathlib import Path

from omegaconf.resolvers import oc

from partcraft_kedro.project import project_folder

# kedro-mlflow brings a model that MLflow warns of, used or not and whatever is filtered.
with warnings.catch_warnings(record=True):
    from partcraft_kedro.hooks import CheckHooks, FlatMlflowHook, PartCraftHooks
    from partcraft_kedro.progress import ProgressHooks


def _absolute(place: str) -> str:
    """A path that means the same wherever it is read; an address such as `s3://bucket` stays as it is."""
    return place if "://" in place else Path(place).expanduser().absolute().as_posix()


def _point(place: str) -> str:
    """What a sweep's point adds to each layer's folder, with or without its first slash; empty outside of one."""
    return f"/{place.strip('/')}" if place.strip("/") else ""


def _database() -> str:
    """The address of MLflow's database. SQLAlchemy decodes it; MLflow makes the undecoded path's folder too, so that
    only what must be is encoded."""
    path = (project_folder() / "mlflow.db").as_posix()
    return f"sqlite:///{path.replace('%', '%25').replace('?', '%3F')}"


# Called last to first: what must fail does so before anything is told, and before MLflow's run is opened.
HOOKS = (PartCraftHooks(), FlatMlflowHook(), ProgressHooks(), CheckHooks())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"sweeps": ["sweeps*"], "mlflow": ["mlflow*"]},
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "custom_resolvers": {
        "root": lambda: project_folder().as_posix(),
        "absolute": _absolute,
        "point": _point,
        "database": _database,
        "oc.env": oc.env,
    },
}
