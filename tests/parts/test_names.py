import pytest

from partcraft_kedro.errors import UserError
from partcraft_kedro.parts.names import complete_names, read_names


def test_every_part_has_one_name_and_none_twice():
    assert complete_names(3, {}) == ["background", "part 1", "part 2"]
    assert complete_names(5, {1: "head", 2: "wing", 3: "head", 4: "head"}) == [
        "background",
        "head",
        "wing",
        "head 2",
        "head 3",
    ]


def test_names_from_a_file(tmp_path):
    (tmp_path / "names.yml").write_text("1: beak\n2: left wing\n")
    assert read_names(tmp_path / "names.yml", 3) == {1: "beak", 2: "left wing"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("1: [", "cannot be read"),
        ("head", "should have lines such as"),
        ("", "should have lines such as"),
        ("7: head", "names part 7, but parts go from 0 to 2"),
        ("head: 1", "names part 'head'"),
        ("1: 'a:b'", "calls part 1 'a:b'"),
        ("1: 5", "calls part 1 5"),
        ("1: head\n2: head", "gives the name 'head' to several parts"),
    ],
)
def test_a_malformed_file_is_told_in_one_sentence(tmp_path, content, complaint):
    path = tmp_path / "names.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=complaint) as told:
        read_names(path, 3)
    assert "\n" not in str(told.value)
