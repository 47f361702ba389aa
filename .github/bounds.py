"""The lowest version that pyproject.toml allows of each dependency, as constraints for pip.

python .github/bounds.py > lowest.txt; pip install --constraint lowest.txt '.[dev]'
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
    name, lowest = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)(?:,.*)?", requirement).groups()
    print(f"{name}=={lowest}")
