"""A value is valid if it is what a type hint says."""

from types import NoneType
from typing import Annotated, Literal

import pytest

from mlxlab.config.schema.signature import Component
from mlxlab.config.schema.validate import Checker
from mlxlab.schema.constraints import FilePath, Gt, Lt, MaxLen, MinLen, Size

GOOD = [
    (int, 3),
    (float, 3),
    (float, 0.5),
    (Size | None, None),
    (Literal["auto"] | int, "auto"),
    (Literal["auto"] | int, 3),
    (Literal[1, 2], 1),
    (int | str, "a"),
    (Annotated[list[int], MinLen(1), MaxLen(2)], [1, 2]),
    (dict[str, str], {"a": "b"}),
    (bool, False),
    (FilePath, "not/there.csv"),
    *((object, value) for value in (3, "a", None, [1], {"a": {"b": 1}})),
]
BAD = [
    *((int, value) for value in (True, 3.0)),
    *((float, value) for value in ("3", float("nan"), float("inf"), 10**400)),
    *((bool, value) for value in (1, "true")),
    *((str, value) for value in (None, "a\0b")),
    *((FilePath, value) for value in ("/", "-", "", "~no-such-user/a.csv")),
    *((Component("Loss"), value) for value in ("cross_entropy", {"a": 1})),
    *((Literal[1, 2], value) for value in (True, 1.0)),
    *((dict[str, str], value) for value in ({"a": 1}, ["a"])),
    (Size, 10**400),
    (Annotated[float, Gt(0)], 0),
    (Annotated[float, Lt(1)], 1),
    (Annotated[list[int], MinLen(1)], []),
    (Annotated[list[int], MaxLen(2)], [1, 2, 3]),
    (list[int], 3),
    (list[str], "abc"),
    (NoneType, 0),
]


@pytest.mark.parametrize(("hint", "value"), GOOD)
def test_a_value_of_its_type_is_valid(hint, value):
    assert list(Checker({}).check_value(hint, value, "key")) == []


@pytest.mark.parametrize(("hint", "value"), BAD)
def test_a_value_of_another_type_is_one_issue_that_names_the_expected_type(hint, value):
    [issue] = Checker({}).check_value(hint, value, "key")
    assert issue.path.startswith("key")
    assert "expected" in issue.message


def test_a_component_below_a_key_of_any_type_is_checked():
    node = {"_target_": "mlxlab.data.sources.open.Reading", "bogus": 1}
    issues = Checker({}).check_value(object, node, "key")
    assert "key.bogus" in [issue.path for issue in issues]
