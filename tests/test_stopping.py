"""A process that is told to end."""

import os
import signal
import subprocess
import sys

import pytest

from partcraft_kedro.stopping import ENDS_WITH_PARENT

WORK = """
import sys, time
from partcraft_kedro.stopping import stoppable
with stoppable():
    try:
        print("begins", flush=True)
        time.sleep(600)
    finally:
        print("tidied up", flush=True)
"""


def work(**environment: str) -> subprocess.Popen:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
    )
    assert process.stdout.readline() == "begins\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order_and_in_one_sentence(number: signal.Signals, code: int) -> None:
    process = work()
    process.send_signal(number)
    output, told = process.communicate(timeout=60)
    assert (process.returncode, output, told) == (code, "tidied up\n", "Stopped; the same command goes on.\n")


def test_a_child_ends_when_its_parent_s_end_of_the_pipe_closes() -> None:
    process = work(**{ENDS_WITH_PARENT: "1"})
    output, _ = process.communicate(timeout=60)  # closes it
    assert (process.returncode, output) == (143, "tidied up\n")
