"""Types of columns: what they are inferred from, what they read, and what they refuse."""

import json
from dataclasses import asdict
from datetime import datetime

import pyarrow as pa
import pytest

from mlxlab.data.labelled.types import ColumnType, fit_type, read_column, spell
from mlxlab.errors import DataError
from mlxlab.files.untrusted import validate

BIG = 2**53


def text_array(*cells):
    return pa.array(cells, pa.string())


KINDS = [
    (["True", "false", "TRUE"], "boolean", [True, False, True]),
    (["true", None, "false"], "boolean", [True, None, False]),
    (["1", "-2", "30"], "integer", [1, -2, 30]),
    (["1.0", None, "30.0"], "integer", [1, None, 30]),
    (["1.5", "-0.25", "1e-07"], "number", [1.5, -0.25, 1e-7]),
    (["0.1", "", "1e+20"], "number", [0.1, None, 1e20]),
    (["2024-01-02", "2024-01-02 00:00:00", " "], "datetime", [datetime(2024, 1, 2)] * 2 + [None]),
    (["31.01.2024", "31.01.2024 00:00"], "datetime", [datetime(2024, 1, 31)] * 2),
    (["31.13.2024", "30.12.2024"], "category", ["31.13.2024", "30.12.2024"]),
    (
        ["9:30", "23:59:59"],
        "datetime",
        [datetime(1970, 1, 1, 9, 30), datetime(1970, 1, 1, 23, 59, 59)],
    ),
    (["9:30", "24:30"], "category", ["9:30", "24:30"]),
    (["2024-01-02T02:00:00+02:00", "2024-01-02 00:00:00Z"], "datetime", [datetime(2024, 1, 2)] * 2),
    (["red", " green ", None], "category", ["red", "green", None]),
    (["01234", "00001", "99999"], "category", ["01234", "00001", "99999"]),
    ([str(BIG), str(BIG + 1), str(2**63 - 1)], "integer", [BIG, BIG + 1, 2**63 - 1]),
    ([str(2**64 - 1), "-1"], "integer", [2**64 - 1, -1]),
    ([str(2**64), str(2**64 + 1)], "category", [str(2**64), str(2**64 + 1)]),
    (["1e400", "9" * 30, "2"], "category", ["1e400", "9" * 30, "2"]),
    (["yes", "no", "1_000"], "category", ["yes", "no", "1_000"]),
    (["A1", "10115", "7"], "category", ["A1", "10115", "7"]),
    ([None, None], "category", [None, None]),
]


@pytest.mark.parametrize(("cells", "kind", "values"), KINDS)
def test_a_type_reads_cells_also_when_stored_and_its_own_spelling(cells, kind, values):
    types = {"a": fit_type(text_array(*cells))}
    assert types["a"].kind == kind
    stored = validate(json.loads(json.dumps(types, default=asdict)), dict[str, ColumnType])
    assert stored == types
    assert read_column("a", text_array(*cells), stored["a"]).cells() == values
    spelled = [None if value is None else spell(value) for value in values]
    assert read_column("a", text_array(*spelled), stored["a"]).cells() == values


def test_kinds_of_texts_and_of_misspelt_numbers():
    texts = [f"text {number}" for number in range(20)]
    tickets = [*map(str, range(40)), *(f"{letter} LINE" for letter in "abcdefghijkl")]
    assert fit_type(text_array(*texts)).kind == "text"
    assert fit_type(text_array("red", "green", "red")).kind == "category"
    assert fit_type(text_array(*map(str, range(20)), "unknown")).kind == "integer"
    assert fit_type(text_array("2.710,5", "3,5")).kind == "number"
    assert fit_type(text_array(*tickets)).kind == "text"
    assert fit_type(text_array(*tickets * 2)).kind == "category"


def test_a_fraction_among_integers_is_a_number():
    """The training rows may hold whole numbers by chance."""
    integers = fit_type(text_array("38", "1e3", str(2**63)), "integer")
    cells = text_array("42.5", str(2**63), "1e3", "1e30")
    assert read_column("age", cells, integers).cells() == [42.5, 2**63, 1000, 1e30]


def test_categories_as_floats_are_those_of_training():
    wards = fit_type(text_array("1", "2", "3", "2"), "category")
    assert wards.categories == ("2", "1", "3")
    column = read_column("ward", text_array("1.0", None, "3.0", "4.0", "4.0"), wards)
    assert column.cells() == ["1", None, "3", "4", "4"]
    assert column.unseen() == {"4": 2}


@pytest.mark.parametrize(
    ("column_type", "cell", "expected"),
    [
        (ColumnType("integer"), "x", "a finite number"),
        (ColumnType("number"), "inf", "a finite number"),
        (ColumnType("boolean"), "yes", "true or false"),
        (ColumnType("datetime"), "soon", "a date or time"),
        (ColumnType("datetime"), "0001-01-01T00:00+12:00", "date or time"),
    ],
)
def test_a_cell_of_another_type_is_named_with_its_row(column_type, cell, expected):
    with pytest.raises(DataError, match=rf"^row 2: column 'a': expected .*{expected}"):
        read_column("a", text_array(None, cell), column_type)
