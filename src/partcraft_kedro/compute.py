"""Where the work that goes picture by picture is done: in this process, or on the machines of a cluster.

A stage gives work that knows its files and does what is missing of them, `work(items, first=n)`, items being any run of
all items that begins at the n-th, a multiple of the size of its shards. Whoever does them, the files are the same.
"""

import gc
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partcraft_kedro.files import write_folder
from partcraft_kedro.options import ComputeOptions

if TYPE_CHECKING:
    from partcraft_kedro.cluster import Workers

Work = Callable[..., object]
_SHARDS = 1000  # that this process does at once: of ten million pictures even the paths fill the memory


class Engine:
    """Does a stage's work. As a context manager it lets go of the cluster's workers when the stage is done.

    device: where models compute, `base.device`; root: the folder of data, on a cluster the same on every machine.
    """

    def __init__(self, options: ComputeOptions, device: str, root: Path):
        self.device, self.root = device, root
        self._options = options
        self._workers: Workers | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._workers:
            self._workers.release()

    def check(self) -> None:
        """Raise UserError if the cluster cannot do work for this process: before hours are spent."""
        if self._options.engine == "ray":
            from partcraft_kedro.cluster import places, usable_machines

            places(usable_machines(self._options.address, self.root), self.device)

    def shared(self, folder: Path, place: Path) -> Path:
        """A folder that the work reads, where every process sees it: itself or, for a cluster if it lies outside of the
        folder of data, as the package and the hub's cache do, a copy in `place`, which is to be removed in the end."""
        if self._options.engine == "local" or folder.is_relative_to(self.root):
            return folder
        copy = place / folder.name
        write_folder(copy, partial(shutil.copytree, folder, dirs_exist_ok=True))
        return copy

    def map(self, open_work: Callable[[], Work], items: Any, size: int, title: str) -> None:
        """Have the work done of all items, a sequence, table or column.

        open_work: loads models and returns the work, in each process that does some of it, to which it is pickled;
        size: items a shard; title: of the bar that shows how far a cluster is.
        Raises UserError as the work does.
        """
        if self._options.engine == "local":
            work = open_work()
            for first in range(0, len(items), size * _SHARDS):
                work(items[first : first + size * _SHARDS], first=first)
            return
        if self._workers is None:
            from partcraft_kedro.cluster import Workers

            _give_back_gpu()
            self._workers = Workers(self._options.address, self.device, self.root)
        self._workers.map(open_work, items, size, title)


def _give_back_gpu() -> None:
    """What earlier stages left of this process on a GPU: a worker there must find memory for batches as large as a run
    without a cluster takes, since sums round as they are split."""
    if torch := sys.modules.get("torch"):  # else there was no such stage
        gc.collect()
        torch.cuda.empty_cache()
