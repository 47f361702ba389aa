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
from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.validation.parameter_validator import ParameterValidator
from kedro_mlflow.config.kedro_mlflow_config import KedroMlflowConfig
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook

from partcraft_kedro.compute import Engine
from partcraft_kedro.console import print_discovery, print_scores
from partcraft_kedro.datasets import FolderDataset, ReadsItsOwn
from partcraft_kedro.datasets.own import path_of
from partcraft_kedro.errors import UserError, in_one_line
from partcraft_kedro.evaluation.measures import MEASURES, PART, names_with
from partcraft_kedro.files import write_file
from partcraft_kedro.options import flatten, in_words, refuse_unknown_groups
from partcraft_kedro.project import stages_of_outputs
from partcraft_kedro.torchrun import is_launched
from partcraft_kedro.tracking import active_mlflow
from partcraft_kedro.weights import is_hub_id, resolve_base

_logger = logging.getLogger(__name__)
_NO_METRIC = re.compile(r"[^/\w.\- :]")  # what MLflow refuses in a metric's name; a part's may have an apostrophe


class CheckHooks:
    """Refuses, before anything is written, what could only fail."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        options = catalog.load("parameters")
        refuse_unknown_groups(options)
        ParameterValidator(dict(pipelines)).validate_raw_params(options)  # also what this pipeline does not need
        _refuse_missing_versions(run_params.get("load_versions") or {}, catalog)
        _refuse_missing_inputs(pipeline, catalog)
        flat = options_of(pipeline, options)
        models = [str(flat.get(name)) for name in ("features.model", "evaluate.part_identity")]
        if "params:base" in pipeline.inputs():  # hours may pass before it is loaded
            models.append(resolve_base(options["base"].model, options["base"].config))
        _do_without_hub(models)
        if "params:train" in pipeline.inputs() and is_launched():
            from partcraft_kedro.devices import refuse_one_of_several
            from partcraft_kedro.training.ranks import Ranks

            refuse_one_of_several(options["base"].device, "torchrun's processes")
            Ranks().refuse_unequal(options["train"].batch_size)
        folder = flat.get("images.folder")
        if folder and not Path(folder).exists():
            raise UserError(f"images.folder={folder!r} is not there: name the folder that the pictures lie in.")
        if "params:compute" in pipeline.inputs():
            Engine(options["compute"], options["base"].device, catalog.load("params:stages").root).check()


def options_of(pipeline: Pipeline, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the groups that a pipeline needs, by dotted names: Kedro has filled in their defaults."""
    needed = {name.removeprefix("params:") for name in pipeline.inputs()}
    return flatten({name: group for name, group in options.items() if name in needed})


def _refuse_missing_versions(versions: dict[str, str], catalog: DataCatalog) -> None:
    for name, version in versions.items():
        dataset = catalog.get(name)
        if isinstance(dataset, FolderDataset):
            dataset.refuse_missing(version)


def _refuse_missing_inputs(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """Raise UserError if a pipeline needs what no run has left behind yet."""
    makers = stages_of_outputs()
    for name in sorted(pipeline.inputs()):
        if name in makers and not catalog.exists(name):
            raise UserError(
                f"There is no {name} yet: run `kedro run --pipelines={makers[name]}` first, with the same --env."
            )


class PartCraftHooks:
    """Logs final metrics and the files that the catalog marks to the MLflow run, registers adapters that were measured,
    and prints what was measured.

    A dataset with `metadata: {mlflow_artifact: <folder>}` is logged as an artifact when it is saved.
    """

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        self._catalog = catalog
        self._adapter: Path | None = None

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
        if dataset_name == "discovery_scores":
            mlflow.log_metrics(metrics_of_parts(data))
            _describe_run(mlflow, _table_of_parts(data))
        if dataset_name == "score_table":
            mlflow.log_table(data.astype(object).where(data.notna(), None), "report/scores.json")
            _describe_run(mlflow, _table_of_scores(data))
        if dataset_name == "metrics":
            measured = metrics_of_pictures(data)
            mlflow.log_metrics(measured)
            if self._adapter:
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


class _LateExperiment(KedroMlflowConfig):
    """What mlflow.yml says, with an experiment that is made when the first run has passed all checks."""

    def _set_experiment(self) -> None:
        """Nothing yet."""

    def open_experiment(self) -> str:
        """Make or find the experiment; returns its id. Raises UserError if a new one could not keep its artifacts."""
        import mlflow

        experiment = self.tracking.experiment
        with _alone():
            if not mlflow.get_experiment_by_name(experiment.name):
                _refuse_unusable_place(experiment.create_experiment_kwargs.artifact_location)
            super()._set_experiment()
        return experiment._experiment.experiment_id


class FlatMlflowHook(MlflowHook):
    """kedro-mlflow's hook, which opens a run for each `kedro run`: named by what it is, and with options by their
    dotted names instead of a stage's as one long string."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Connect to MLflow, one run at a time: MLflow breaks if two make its database at once."""
        config = _LateExperiment.model_validate(context.config_loader["mlflow"])
        address = config.server.mlflow_tracking_uri
        _refuse_unusable(address)
        with _alone():
            # It would tell with a traceback what it raises as well, and of each table that it makes.
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
            logging.getLogger("alembic").setLevel(logging.ERROR)
            logging.getLogger("kedro_mlflow").setLevel(logging.WARNING)  # it sets its own when it is imported
            if address.startswith("sqlite:///"):
                _make_whole(address)
            self._already_active_mlflow = active_mlflow() is not None
            if not self._already_active_mlflow:
                config.setup(context)
            place = config.tracking.experiment.create_experiment_kwargs.artifact_location
            if address.startswith("sqlite:///") and str(place).startswith("file:"):
                _follow_artifacts(address, place)
        context.__setattr__("mlflow", config)  # where kedro-mlflow's commands look for it
        self.mlflow_config = config

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        if not self._already_active_mlflow:
            self.mlflow_config.open_experiment()
        run = self.mlflow_config.tracking.run
        run.name = run.name or name_of_run(run_params)
        super().before_pipeline_run(run_params, pipeline, catalog)
        if mlflow := active_mlflow():
            options = options_of(pipeline, catalog.load("parameters"))
            mlflow.log_params({name: str(value)[:500] for name, value in options.items()})

    @hook_impl
    def before_node_run(self) -> None:
        """Nothing: options are logged once a run."""


def name_of_run(run_params: dict[str, Any]) -> str:
    """What a run is called: what of the chain it ran, unless all, and which options the user chose."""
    parts = [*(run_params.get("pipeline_names") or ()), *(run_params.get("tags") or ())]
    parts = [", ".join(parts)] if parts else []
    parts += [f"{name} {version}" for name, version in (run_params.get("load_versions") or {}).items()]
    parts += [in_words(option, value) for option, value in flatten(run_params.get("runtime_params") or {}).items()]
    return ", ".join(parts)[:250] or "defaults"


def metrics_of_parts(scores: dict[str, Any]) -> dict[str, float]:
    """The numbers among the scores of discovered parts, by MLflow's names: `parts/nmi`."""
    flat = flatten(scores)
    return {f"parts/{_NO_METRIC.sub('', name)}": v for name, v in flat.items() if isinstance(v, int | float)}


def metrics_of_pictures(scores: dict[str, Any]) -> dict[str, float]:
    """The values of measures, by MLflow's names: `emr/composition.4`, `distance/frechet`.

    MLflow folds charts by what stands before the slash, and shows some 18 letters of a title: a measure of pictures
    stands first, so that its tasks are side by side.
    """
    of_pictures, metrics = names_with(per_picture=True), {}
    for name, value in flatten(scores).items():
        task, _, measure = name.removesuffix(".value").rpartition(".")
        if name.endswith(".value") and isinstance(value, int | float):
            titled = f"{measure}/{task}" if measure in of_pictures else f"{task}/{measure}"
            metrics[_NO_METRIC.sub("", titled)] = value
    return metrics


def _describe_run(mlflow: Any, table: pd.DataFrame) -> None:
    """Put a table at the top of a run's page."""
    mlflow.set_tag("mlflow.note.content", _markdown(table))


def _table_of_parts(scores: dict[str, Any]) -> pd.DataFrame:
    rows = [(name, f"{value:.3f}") for name, value in scores.items() if isinstance(value, float)]
    return pd.DataFrame(rows, columns=["discovered parts", "value"])


def _table_of_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Each task's measures of pictures side by side; of parts and regions the report tells."""
    of_pictures = scores["measure"].isin(names_with(per_picture=True, of_regions=False))
    shown = scores[of_pictures & scores["value"].notna() & ~scores["task"].str.startswith(PART)]
    text = shown.assign(value=shown["value"].map("{:.3f}".format), title=[MEASURES[m].title for m in shown["measure"]])
    wide = text.pivot(index="task", columns="title", values="value")
    return wide.loc[text["task"].unique(), text["title"].unique()].fillna("").reset_index()


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _alone() -> FileLock:
    """Keeps other runs from MLflow's database meanwhile."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return FileLock(Path(tempfile.gettempdir()) / f"partcraft-mlflow-{user}.lock")


def _refuse_unusable(address: str) -> None:
    """Raise UserError, within seconds, if MLflow could not keep runs at an address."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    scheme = urlsplit(address).scheme
    what_to_give = "give a database, sqlite:////<folder>/mlflow.db, or a server's address, http://…"
    if scheme in ("", "file"):
        raise UserError(
            f"MLFLOW_TRACKING_URI={address} is a folder, and MLflow no longer keeps runs in one: {what_to_give}"
        )
    if scheme in ("http", "https"):
        try:
            requests.get(address, timeout=5)
        except requests.RequestException as error:
            raise UserError(
                f"MLflow's server at {address} does not answer ({error}): start it, or unset MLFLOW_TRACKING_URI to "
                "keep runs in the project's own database."
            ) from error
    elif scheme != "sqlite":
        try:
            MlflowClient(address)  # which connects to a database
        except (ImportError, MlflowException, SQLAlchemyError) as error:
            raise UserError(f"MLFLOW_TRACKING_URI is not to be used ({in_one_line(error)}): {what_to_give}") from error


def _folder_at(address: str) -> Path:
    """The folder of an address that begins with `file:`."""
    return Path(url2pathname(urlsplit(address).path))


def _refuse_unusable_place(place: str) -> None:
    """Raise UserError if MLflow could not keep artifacts at an address."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        if place.startswith("file:"):
            folder = _folder_at(place)
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        else:
            get_artifact_repository(place)
    except (ImportError, OSError, MlflowException) as error:
        raise UserError(
            f"MLflow's artifacts cannot go to {place} ({in_one_line(error)}): set PARTCRAFT_ARTIFACTS to a folder that "
            "can be written, or to an address such as s3://bucket/runs."
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
    if "HF_HUB_OFFLINE" in os.environ or not any(map(is_hub_id, models)):
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

    folder = _folder_at(place)
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
        tables.append(f"{_markdown(table)}\n\n**{name}**: mean over seeds ± half the 95% interval")
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
    compared = set(names_with(compared=True))
    for metric, value in measured.items():
        if compared & set(metric.split("/")) and f"/{PART.strip()}." not in metric:
            client.set_model_version_tag(name, version, metric, f"{value:.4f}")
