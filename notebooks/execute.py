"""Execute the notebooks on the finished demo, and keep their outputs as they are committed: figures as small JPEGs, no
progress bars.

python notebooks/execute.py [01_parts …]
"""

import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

_FOLDER = Path(__file__).parent
_WIDTH, _QUALITY = 720, 60  # of a figure's JPEG


def execute(path: Path) -> None:
    """Execute a notebook in its folder, and write it with its outputs. What fails is raised, and nothing is written."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(_FOLDER)}}, record_timing=False
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of whoever executed it
    for cell in notebook.cells:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    output["data"]["image/jpeg"] = _as_jpeg(output["data"].pop("image/png"))
    nbformat.write(notebook, path)


def _as_jpeg(png: str) -> str:
    """A figure's PNG, in base64, as a JPEG that is small enough to commit."""
    picture = Image.open(BytesIO(b64decode(png))).convert("RGB")
    picture.thumbnail((_WIDTH, _WIDTH), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in _FOLDER.glob("*.ipynb")):
        execute(_FOLDER / f"{name}.ipynb")
