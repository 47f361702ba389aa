"""What errors say, in sentences of ours."""

import pytest

from partcraft_kedro.errors import first_line, in_one_line


@pytest.mark.parametrize(
    ("error", "first", "whole"),
    [
        (ValueError("\n no such key\n  in line 3 "), "no such key", "no such key in line 3"),
        (ValueError(), "ValueError", "ValueError"),
        (OSError(" \n"), "OSError", "OSError"),
    ],
)
def test_an_error_is_told_in_a_line(error: Exception, first: str, whole: str) -> None:
    assert first_line(error) == first
    assert in_one_line(error) == whole
