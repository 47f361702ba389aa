"""Documents: JSON, YAML for what people edit, and pages."""

import json
from typing import Any

import yaml
from kedro_datasets._typing import JSONPreview
from kedro_datasets.json import JSONDataset
from kedro_datasets.text import TextDataset
from kedro_datasets.yaml import YAMLDataset

from partcraft_kedro.datasets.own import ReadsItsOwn, if_it_is_there


class DocumentDataset(ReadsItsOwn, JSONDataset):
    """`json.JSONDataset`, read as it was written."""

    @if_it_is_there
    def preview(self) -> JSONPreview:
        """The file."""
        return JSONPreview(self.content.decode())

    def _encode(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _decode(self, content: bytes) -> Any:
        return json.loads(content)


class EditableDataset(ReadsItsOwn, YAMLDataset):
    """`yaml.YAMLDataset`, read as it was written."""

    preview = if_it_is_there(YAMLDataset.preview)

    def _encode(self, data: Any) -> bytes:
        return yaml.safe_dump(data, sort_keys=False).encode()

    def _decode(self, content: bytes) -> Any:
        return yaml.safe_load(content)


class PageDataset(ReadsItsOwn, TextDataset):
    """`text.TextDataset`, in UTF-8, read as it was written."""

    def _encode(self, data: str) -> bytes:
        return data.encode()

    def _decode(self, content: bytes) -> str:
        return content.decode()
