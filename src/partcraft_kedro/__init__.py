import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("DO_NOT_TRACK", "true")  # MLflow and others send usage statistics unless told not to
# Else transformers tells in every run that torchvision, which nothing here needs, is not installed.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
if "IPython" in sys.modules:  # a notebook's folder has no conf/, and Kedro would tell there of all that it loads
    os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(Path(__file__).with_name("conf") / "logging.yml"))
warnings.filterwarnings("ignore", "IProgress not found")  # bars are text in notebooks
