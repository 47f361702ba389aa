"""What happens around a run: quiet logs, and MLflow records that compare well."""

import contextlib
import json
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import requests
from filelock import FileLock
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook

from partcraft_kedro.console import print_discovery, print_scores
from partcraft_kedro.datasets import ReadsItsOwn
from partcraft_kedro.datasets.own import path_of
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.measures import names_with
from partcraft_kedro.files import write_file
from partcraft_kedro.options import GROUPS, flatten, refuse_unknown_groups
from partcraft_kedro.tracking import active_mlflow
from partcraft_kedro.weights import resolve_base

_logger = logging.getLogger(__name__)
_NO_METRIC = re.compile(r"[^/\w.\- :]")  # what MLflow refuses in a metric's name; a part's may have an apostrophe


class PartCraftHooks:
    """Flattens options and final metrics into the MLflow run, logs the files that the catalog marks, and registers
    adapters that were measured.

    A dataset with `metadata: {mlflow_artifact: <folder>}` is logged as an artifact when it is saved.
    """

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        self._catalog = catalog
        self._adapter: Path | None = None

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        logging.getLogger("alembic").setLevel(logging.ERROR)
        options = catalog.load("parameters")
        refuse_unknown_groups(options)
        # Kedro fills in the defaults of the groups that the pipeline needs, and of no others.
        flat = flatten({name: GROUPS[name].model_validate(group) for name, group in options.items()})
        _do_without_hub(str(flat[name]) for name in ("base.model", "features.model", "evaluate.part_identity"))
        if "params:base" in pipeline.inputs():  # hours may pass before it is loaded
            resolve_base(options["base"].model)
        if mlflow := active_mlflow():
            mlflow.log_params({name: str(value)[:500] for name, value in flat.items()})

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        if "score_table" in pipeline.datasets():
            print_scores(catalog.load("score_table"), catalog)
        elif "discovery_scores" in pipeline.all_outputs():
            print_discovery(catalog.load("discovery_scores"), catalog)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        mlflow = active_mlflow()
        if not mlflow:
            return
        if dataset_name in ("discovery_scores", "metrics"):
            tree = {"discovery": data} if dataset_name == "discovery_scores" else data | {"discovery": {}}
            flat = {_NO_METRIC.sub("", name): value for name, value in flatten(tree).items()}
            measured = {name: value for name, value in flat.items() if isinstance(value, int | float)}
            mlflow.log_metrics(measured)
            if dataset_name == "metrics" and self._adapter:
                _register_adapter(mlflow, self._adapter, measured)
        if dataset_name == "sweep_summary":
            mlflow.set_tag("mlflow.note.content", _tables_of_sweeps(data))
        dataset = self._catalog.get(dataset_name)
        folder = (getattr(dataset, "metadata", None) or {}).get("mlflow_artifact")
        if folder:
            path = path_of(self._catalog, dataset_name)
            if isinstance(dataset, ReadsItsOwn):  # a run beside this one may have written to its place since
                with tempfile.TemporaryDirectory() as own:
                    (Path(own) / path.name).write_bytes(dataset.content)
                    mlflow.log_artifact(str(Path(own) / path.name), folder)
            elif dataset_name == "adapter":
                self._adapter = path
                _log_adapter(mlflow, path, folder)
            else:
                mlflow.log_artifacts(str(path), folder)


class FlatMlflowHook(MlflowHook):
    """kedro-mlflow's hook without its log of parameters: it would log each stage's options as one long string."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Connect to MLflow, one run at a time: MLflow breaks if two make its database at once."""
        address = context.config_loader["mlflow"]["server"]["mlflow_tracking_uri"]
        _refuse_unusable(address)
        user = os.getuid() if hasattr(os, "getuid") else ""
        with FileLock(Path(tempfile.gettempdir()) / f"partcraft-mlflow-{user}.lock"):
            if address.startswith("sqlite:///"):
                _make_whole(address)
            # It would tell with a traceback what it raises as well.
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
            super().after_context_created(context)
            place = self.mlflow_config.tracking.experiment.create_experiment_kwargs.artifact_location
            if address.startswith("sqlite:///") and str(place).startswith("file:"):
                _follow_artifacts(address, place)

    @hook_impl
    def before_node_run(self) -> None:
        """Nothing: `PartCraftHooks` logs the options, flattened, once a run."""


def _refuse_unusable(address: str) -> None:
    """Raise UserError, within seconds, if MLflow could not keep runs at an address."""
    scheme = urlsplit(address).scheme
    if scheme in ("", "file"):
        raise UserError(
            f"MLFLOW_TRACKING_URI={address} is a folder, and MLflow no longer keeps runs in one: give a database, "
            "sqlite:////<folder>/mlflow.db, or a server's address, http://…"
        )
    if scheme in ("http", "https"):
        try:
            requests.get(address, timeout=5)
        except requests.RequestException as error:
            raise UserError(
                f"MLflow's server at {address} does not answer ({error}): start it, or unset MLFLOW_TRACKING_URI to "
                "keep runs in the project's own database."
            ) from error


def _make_whole(address: str) -> None:
    """Make MLflow's database if there is none, whole or not at all: one that is half-made serves nobody.

    MLflow itself takes seconds, in many transactions, and a run may be killed meanwhile, or the disk be full.
    """
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine, make_url

    url = make_url(address)

    def fill(partial: Path) -> None:
        engine = create_engine(url.set(database=str(partial)))
        try:
            _initialize_tables(engine)
        finally:
            engine.dispose()

    assert url.database is not None  # sqlite:///<path> has one
    if not Path(url.database).exists():
        write_file(Path(url.database), fill)


def _do_without_hub(models: Iterable[str]) -> None:
    """If models have hub ids and the hub does not answer, look for them on this machine alone: else each of their
    files would be asked for again and again, for half a minute."""
    if "HF_HUB_OFFLINE" in os.environ or all(name.count("/") != 1 or Path(name).exists() for name in models):
        return
    try:
        requests.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=5)
    except requests.RequestException as error:
        _logger.warning("The hub does not answer, models are looked for on this machine alone (%s).", error)
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when a stage imports the library, and not before


def _follow_artifacts(address: str, place: str) -> None:
    """Keep artifacts in `place` from now on, and find those that are there already.

    MLflow writes down absolute addresses: a project that was moved or copied would go on writing to where it was.
    """
    from sqlalchemy import make_url

    folder = Path(url2pathname(urlsplit(place).path))
    with contextlib.closing(sqlite3.connect(str(make_url(address).database), timeout=60)) as database, database:
        elsewhere = database.execute(
            "update experiments set artifact_location = ? where artifact_location != ? and name like 'partcraft-%'",
            (place, place),
        )
        if not elsewhere.rowcount:
            return
        for run, old in database.execute("select run_uuid, artifact_uri from runs").fetchall():
            new = f"{place}/{run}/artifacts"
            if old != new and (folder / run).is_dir():
                database.execute("update runs set artifact_uri = ? where run_uuid = ?", (new, run))
                database.execute(
                    "update model_versions set source = replace(source, ?, ?), "
                    "storage_location = replace(storage_location, ?, ?) where run_id = ?",
                    (old, new, old, new, run),
                )
    _logger.warning("MLflow kept its artifacts elsewhere: from now on they are kept, and found, in %s.", folder)


def _tables_of_sweeps(summary: pd.DataFrame) -> str:
    """What MLflow shows at the top of a run's page: each sweep's table, in Markdown."""
    from partcraft_kedro.experiments.summary import table_of_headlines

    tables = []
    for name, rows in summary.groupby("sweep", sort=False):
        table = table_of_headlines(rows)
        lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
        text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        tables.append(f"{text}\n\n**{name}**: mean over seeds ± half the 95% interval")
    return "\n\n".join(tables)


def _log_adapter(mlflow: Any, adapter: Path, folder: str) -> None:
    """Log a version of the adapter as an artifact, unless an earlier run has it: it may have gigabytes."""
    version = adapter.parent.name
    if not _run_with(mlflow, version):
        mlflow.log_artifacts(str(adapter), folder)
    mlflow.set_tag("adapter_version", version)


def _run_with(mlflow: Any, version: str) -> Any:
    """The experiment's first run that had a version of the adapter; none: there is no such run."""
    query = f"tags.adapter_version = '{version}'"
    runs = mlflow.MlflowClient().search_runs(
        [mlflow.active_run().info.experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"]
    )
    return runs[0] if runs else None


def _register_adapter(mlflow: Any, adapter: Path, measured: dict[str, float]) -> None:
    """Make the adapter a version of the experiment's registered model, with its scores; an equal one is kept."""
    from mlflow.exceptions import MlflowException

    client, run = mlflow.MlflowClient(), mlflow.active_run()
    name = client.get_experiment(run.info.experiment_id).name
    if not client.search_registered_models(f"name = '{name}'"):
        with contextlib.suppress(MlflowException):  # another run was quicker
            client.create_registered_model(
                name, description="PartCraft adapters: part tokens and what learnt with them."
            )
    fingerprint = json.loads((adapter / "adapter.json").read_text())["training"]["fingerprint"]
    known = client.search_model_versions(f"name = '{name}' and tags.fingerprint = '{fingerprint}'")
    if known:
        version = known[0].version
    else:
        source = f"{_run_with(mlflow, adapter.parent.name).info.artifact_uri}/adapter"
        tags = {"fingerprint": fingerprint}
        version = client.create_model_version(name, source, run.info.run_id, tags).version
    compared = tuple(f".{measure}.value" for measure in names_with(compared=True))
    for metric, value in measured.items():
        if metric.endswith(compared):
            client.set_model_version_tag(name, version, metric.removesuffix(".value"), f"{value:.4f}")
