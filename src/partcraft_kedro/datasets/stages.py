"""Stages in the catalog: where they are kept, and which one a run made."""

import json
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from partcraft_kedro.datasets.document import DocumentDataset
from partcraft_kedro.stages import StageRef, Stages


class StagesDataset(AbstractDataset[None, Stages]):
    """Loads as what runs the stages of a dataset below a folder of data.

    Called `params:stages` it does not crowd the drawn pipeline: nearly every node has it.
    """

    def __init__(self, *, root: str, dataset: str, point: str, metadata: dict[str, Any] | None = None):
        self._stages = Stages(Path(root), dataset, point)
        self.metadata = metadata

    def load(self) -> Stages:
        return self._stages

    def save(self, data: None) -> NoReturn:
        raise DatasetError("Stages are saved as they are run.")

    def _describe(self) -> dict[str, Any]:
        return {"root": str(self._stages.root), "dataset": self._stages.dataset, "point": self._stages.point}


class StageRefDataset(DocumentDataset):
    """A stage that a run made or found, as a small JSON document. root: the folder of data that it lies in."""

    def __init__(self, *, root: str, **of_document: Any):
        super().__init__(**of_document)
        self._root = Path(root)

    def _encode(self, data: StageRef) -> bytes:
        folder = data.folder.relative_to(self._root).as_posix()
        return json.dumps({"folder": folder, "fingerprint": data.fingerprint, "summary": data.summary}).encode()

    def _decode(self, content: bytes) -> StageRef:
        found = json.loads(content)
        return StageRef(self._root / found["folder"], found["fingerprint"], found["summary"], found=True)
