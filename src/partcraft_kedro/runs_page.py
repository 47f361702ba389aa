"""MLflow's pages, opened on the runs of an environment: left to itself it opens on pages for language models."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import requests
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from partcraft_kedro.errors import UserError
from partcraft_kedro.project import project_folder

_SECONDS = 120  # until MLflow's server answers, on a machine that is busy


def serve_runs(env: str | None, host: str, port: int) -> tuple[str, Callable[[], None]]:
    """Start MLflow's server, unless runs are kept on one.

    Returns the address of the experiment's page, and what waits until the server ends, and ends it if interrupted.
    Raises UserError if there are no runs yet, or if the server does not start.
    """
    import mlflow

    bootstrap_project(project_folder())
    with KedroSession.create(env=env) as session:
        config = session.load_context().mlflow  # type: ignore[attr-defined]  # FlatMlflowHook puts it there
    name, store = config.tracking.experiment.name, config.server.mlflow_tracking_uri
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        raise UserError(f"There are no runs of {name} yet: kedro run{f' --env={env}' if env else ''} makes one.")
    page = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    if store.startswith("http"):
        return f"{store.rstrip('/')}/{page}", lambda: None
    server = [sys.executable, "-m", "mlflow", "server", "--workers=1", f"--host={host}", f"--port={port}"]
    # Or each request would be a line, and the address soon out of sight.
    quiet = os.environ | {"MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [*server, f"--backend-store-uri={store}", "--uvicorn-opts=--log-level=warning"], env=quiet
    )
    address = f"http://{host}:{port}"
    try:
        _wait_for(f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}", process)
    except BaseException:
        process.terminate()
        raise

    def wait() -> None:
        try:
            process.wait()
        finally:
            process.terminate()

    return f"{address}/{page}", wait


def _wait_for(address: str, process: subprocess.Popen) -> None:
    for _ in range(2 * _SECONDS):
        if process.poll() is not None:
            break
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise UserError(f"MLflow's pages do not open at {address}: what it says above tells why; or give another --port.")
