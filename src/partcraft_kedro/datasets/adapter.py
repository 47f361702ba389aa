"""Adapters in the catalog."""

from pathlib import PurePosixPath

from partcraft_kedro.datasets.previews import ModelCardDataset
from partcraft_kedro.export.finding import find_adapter


class AdapterDataset(ModelCardDataset):
    """Versions of an adapter. The version to load may also be the folder of another adapter or the hub id of an export:
    `--load-versions=adapter:me/birds`."""

    def refuse_missing(self, version: str) -> None:
        find_adapter(self.versions(), version)

    def _get_load_path(self) -> PurePosixPath:
        asked = self._version.load if self._version else None
        if asked and asked not in self.versions():
            return PurePosixPath(find_adapter(self.versions(), asked))
        return super()._get_load_path()
