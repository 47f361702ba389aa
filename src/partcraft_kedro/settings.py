"""Project settings. There is no need to edit this file unless you want to change Kedro's own behaviour."""

from pathlib import Path

from omegaconf.resolvers import oc

from partcraft_kedro.hooks import FlatMlflowHook, PartCraftHooks

# Called last to first: the MLflow run is open before options go into it.
HOOKS = (PartCraftHooks(), FlatMlflowHook())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"sweeps": ["sweeps*"]},
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "custom_resolvers": {
        "root": lambda: Path(__file__).resolve().parents[2].as_posix(),
        "oc.env": oc.env,
    },
}
