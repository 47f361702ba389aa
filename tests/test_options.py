"""Every option is described; tests/pipelines/test_options_matter.py shows that it matters."""

import pytest
from pydantic import BaseModel

from partcraft_kedro import options

GROUPS = [value for value in vars(options).values() if isinstance(value, type) and issubclass(value, BaseModel)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_option_is_described(group) -> None:
    assert all(field.description for field in group.model_fields.values())
