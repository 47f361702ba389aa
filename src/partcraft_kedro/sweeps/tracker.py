"""A sweep in MLflow."""

import logging

import mlflow
from mlflow.exceptions import MlflowException

from partcraft_kedro.sweeps.book import Book
from partcraft_kedro.sweeps.grid import Point

_logger = logging.getLogger(__name__)


class Tracker:
    """The sweep's MLflow run, gone on with if there is one, and those of its points."""

    def __init__(self, book: Book, experiment: str, title: str):
        """experiment: the id of MLflow's; title: of the sweep's run."""
        self._client, self._book, self._experiment = mlflow.MlflowClient(), book, experiment
        known = book.run_id
        try:
            if known is not None:
                self.run_id: str = known
                self._client.update_run(known, status="RUNNING")
                return
        except MlflowException:
            _logger.warning("MLflow no longer knows run %s of the sweep, nor those of its finished points.", known)
        run = self._client.create_run(experiment, run_name=title, tags={"sweep": book.name})
        self.run_id = run.info.run_id
        for option, values in book.sweep.grid.items():
            self._client.log_param(self.run_id, f"grid.{option}", str(values))
        self._client.log_param(self.run_id, "grid.seeds", str(book.sweep.seeds))
        book.write_run(self.run_id)

    def forget(self, point: Point) -> None:
        """Delete the runs of attempts at a point that were killed or failed: it is run again."""
        query = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.point = '{point.name}'"
        for run in self._client.search_runs([self._experiment], query):
            self._client.delete_run(run.info.run_id)

    def begin(self, point: Point) -> str:
        """A child run for a point; returns its id."""
        tags = {"mlflow.parentRunId": self.run_id, "sweep": self._book.name, "setting": point.setting}
        tags |= {"point": point.name}
        return self._client.create_run(self._experiment, run_name=point.title, tags=tags).info.run_id

    def adapter_version(self, run_id: str) -> str:
        """Of the adapter that a point's run saved."""
        return self._client.get_run(run_id).data.tags["adapter_version"]

    def end(self, status: str, run_id: str | None = None) -> None:
        self._client.set_terminated(run_id or self.run_id, status)
