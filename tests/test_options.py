"""Every option is described; tests/pipelines/test_options_matter.py shows that it matters."""

from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter

from partcraft_kedro import options

GROUPS = [value for value in vars(options).values() if isinstance(value, type) and issubclass(value, BaseModel)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_option_is_described(group) -> None:
    assert all(field.description for field in group.model_fields.values())


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_in_every_path_and_model_a_tilde_is_the_user_s_home(group, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for name, field in group.model_fields.items():
        if name in ("model", "part_identity", "folder", "labels", "names", "inception"):
            adapter = TypeAdapter(Annotated[field.annotation, field])
            assert str(adapter.validate_python("~/here")) == "/home/somebody/here"
            assert str(adapter.validate_python("owner/model~1")) == "owner/model~1"
        else:
            assert "path" not in str(field.annotation).lower()
