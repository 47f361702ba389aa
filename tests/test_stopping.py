"""A process that is told to end."""

import os
import signal
import subprocess
import sys

import pytest

from partcraft_kedro.stopping import ENDS_WITH_PARENT

WORK = """
import multiprocessing, time
from partcraft_kedro.stopping import stoppable
with stoppable():
    try:
        for _ in range(20):
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
        print("begins", flush=True)
        time.sleep(600)
    finally:
        print("tidied up", flush=True)
"""


def work(**environment: str) -> subprocess.Popen:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", WORK],
        env=os.environ | environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "begins\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order_and_in_one_sentence(number: signal.Signals, code: int) -> None:
    process = work()
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # Ctrl-C reaches helpers too
    output, told = process.communicate(timeout=60)
    assert (process.returncode, output, told) == (code, "tidied up\n", "Stopped; the same command goes on.\n")


def test_a_child_ends_when_its_parent_s_end_of_the_pipe_closes() -> None:
    process = work(**{ENDS_WITH_PARENT: "1"})
    output, _ = process.communicate(timeout=60)  # closes it
    assert (process.returncode, output) == (143, "tidied up\n")


def test_it_ends_in_order_though_mlflow_cannot_be_told(client, tmp_path) -> None:
    script = f"""
import mlflow
from partcraft_kedro.stopping import stoppable
mlflow.set_tracking_uri("sqlite:///{tmp_path}/mlflow.db")
mlflow.set_experiment("curves")
with stoppable():
    mlflow.start_run()
    open("{tmp_path}/mlflow.db", "w").write("no database any more")
    raise KeyboardInterrupt
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 130, ended.stderr
    told = ended.stderr.splitlines()
    assert told[-2].startswith("MLflow goes on showing this run as running (")
    assert told[-1] == "Stopped; the same command goes on."


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_mlflow_s_transaction(
    number: signal.Signals, code: int, client, tmp_path
) -> None:
    script = f"""
import signal, time
import mlflow
from sqlalchemy import Engine, event
from partcraft_kedro.stopping import stoppable
mlflow.set_tracking_uri("sqlite:///{tmp_path}/mlflow.db")
with stoppable():
    mlflow.set_experiment("curves")
    mlflow.start_run()
    event.listen(Engine, "after_cursor_execute", lambda *_: signal.raise_signal({number:d}), once=True)
    mlflow.log_metric("loss", 1.0)
    time.sleep(600)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == code, ended.stderr
    (run,) = client.search_runs([client.get_experiment_by_name("curves").experiment_id])
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 1.0})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_not_lost_where_python_drops_exceptions(number: signal.Signals, code: int) -> None:
    script = f"""
import signal, time
from partcraft_kedro.stopping import stoppable
class Resource:
    def __del__(self):
        signal.raise_signal({number:d})
with stoppable():
    Resource()
    time.sleep(600)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (code, "Stopped; the same command goes on.\n")
