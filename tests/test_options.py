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


@pytest.mark.parametrize("group", options.GROUPS.values(), ids=list(options.GROUPS))
def test_every_option_has_a_default(group) -> None:
    assert group() == group.model_validate(group().model_dump())


def test_an_old_name_is_refused_with_the_new_one() -> None:
    for old, new in options._CALLED_NOW.items():
        (group,) = (group for group in GROUPS if new in group.model_fields)
        with pytest.raises(ValueError, match=f"there is no option '{old}', did you mean '{new}'"):
            group.model_validate({old: 1})
