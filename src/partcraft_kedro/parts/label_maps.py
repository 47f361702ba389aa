"""Label maps on disk."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from partcraft_kedro.files import read_file, write_folder

_FILE = "masks.safetensors"


def save_label_maps(label_maps: np.ndarray, folder: Path) -> None:
    """(n, grid, grid) uint8 into a folder of their own. Raises FullDisk."""
    write_folder(folder, lambda partial: save_file({"label_maps": label_maps}, partial / _FILE))


def load_label_maps(folder: Path) -> np.ndarray:
    """(n, grid, grid) uint8. Raises UserError if they are missing or damaged."""
    return read_file(folder / _FILE, load_file)["label_maps"]
