"""Nothing that the project brings along sends usage statistics, unless its user wants it to."""

import os
import subprocess
import sys

_ASK = "import partcraft_kedro; from mlflow.telemetry import utils; print(utils.is_telemetry_disabled())"


def test_mlflow_sends_none() -> None:
    # Each of the others tells MLflow that it is being tested, when it sends none anyway.
    hidden = ("DO_NOT_TRACK", "CI", "PYTEST", "MLFLOW", "GITHUB", "BUILD", "JENKINS", "TRAVIS", "TF_BUILD")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    asked = subprocess.run([sys.executable, "-c", _ASK], env=variables, capture_output=True, text=True)
    assert asked.stdout.strip() == "True", asked.stderr
