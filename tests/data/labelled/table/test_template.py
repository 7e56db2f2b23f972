"""Templates of tables: placeholders, escaped braces, and what is refused."""

import pytest

from mlxlab.data.labelled.table.template import default_template, parse_template, refuse_reserved
from mlxlab.errors import ConfigError


def test_the_default_names_every_column():
    assert default_template(["age", "fare {£}"]) == (
        ["age: ", ", fare {£}: ", ""],
        ["age", "fare {£}"],
    )


def test_placeholders_are_names_of_columns_whatever_they_contain():
    parsed = parse_template("{age}, {sepal length (cm)}{a:b!c}.", {})
    assert parsed == (["", ", ", "", "."], ["age", "sepal length (cm)", "a:b!c"])


def test_doubled_braces_are_braces():
    assert parse_template("{{{age}}} {{age}}", {}) == (["{", "} {age}"], ["age"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{age} costs {price}",
            "data.template: {price} is data.target: the model must not read it",
        ),
        ("{age", "'{' at character 1"),
        ("{age}}", "'}' at character 6"),
        ("no column", "at least one placeholder"),
    ],
)
def test_a_wrong_template_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_template(text, {"price": "data.target"})
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_chosen_columns_are_checked_alike():
    refuse_reserved("age", {"price": "data.target"}, "data.columns: age")
    with pytest.raises(ConfigError, match=r"data\.columns: price is data\.target"):
        refuse_reserved("price", {"price": "data.target"}, "data.columns: price")
