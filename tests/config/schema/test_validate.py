"""A value is valid if it is what a type hint says."""

from types import NoneType
from typing import Annotated, Literal, Union

import pytest

from mlxlab.config.schema.signature import Component
from mlxlab.config.schema.validate import Checker, describe
from mlxlab.schema.constraints import FilePath, Gt, Lt, MaxLen, MinLen, Share, Size

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
    (int, True),
    (int, 3.0),
    (float, "3"),
    (float, float("nan")),
    (float, float("inf")),
    (float, 10**400),
    (Size, 10**400),
    (Annotated[float, Gt(0)], 0),
    (Annotated[float, Lt(1)], 1),
    (Literal[1, 2], True),
    (Literal[1, 2], 1.0),
    (Annotated[list[int], MinLen(1)], []),
    (Annotated[list[int], MaxLen(2)], [1, 2, 3]),
    (list[int], 3),
    (list[str], "abc"),
    (dict[str, str], {"a": 1}),
    (dict[str, str], ["a"]),
    (bool, 1),
    (bool, "true"),
    (NoneType, 0),
    (str, None),
    (str, "a\0b"),
    (FilePath, "/"),
    (FilePath, "-"),
    (FilePath, ""),
    (FilePath, "~no-such-user/a.csv"),
    (Component("Loss"), "cross_entropy"),
    (Component("Loss"), {"a": 1}),
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


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Size, "a whole number >= 1"),
        (Share | None, "a number >= 0 and < 1 or null"),
        (Annotated[list[Literal["a", "b"]], MinLen(1)], "a list of length >= 1: one of a, b"),
        (
            Annotated[list[float], MinLen(2), MaxLen(2)],
            "a list of length >= 2 and of length <= 2: a number",
        ),
        (
            Annotated[list[float], MinLen(2), MaxLen(3)],
            "a list of length >= 2 and of length <= 3: a number",
        ),
        (Literal["auto"] | bool, "auto or true or false"),
        (object, "any value"),
        (float | dict[str, int], "a number or a mapping of names to a whole number"),
        (dict[str, FilePath], "a mapping of names to a file"),
    ],
)
def test_a_type_is_described_in_words(hint, expected):
    assert describe(hint) == expected


def test_a_component_is_no_mapping_of_named_components():
    node = {"_target_": "mlxlab.callbacks.progress_bar.ProgressBar", "bar": "auto"}
    hint = dict[str, Component("mlxlab.training.callback.Callback")]
    [issue] = Checker({}).check_value(hint, node, "callbacks")
    assert issue.path == "callbacks"
    assert issue.message.startswith("expected a mapping of names to a component")


def test_of_several_components_the_named_one_is_checked():
    home = "mlxlab.extensions.curriculum.curriculum"
    options = [Component(f"{home}.{name}") for name in ("MeasuredOrder", "CurriculumOrder")]
    node = {"_target_": options[1].target, "alpha": 1.0, "pool": 0, "rescore_every": 1, "keep": 0.5}
    [issue] = Checker({}).check_value(Union[*options], node, "data.order")
    assert issue.path == "data.order.pool"
