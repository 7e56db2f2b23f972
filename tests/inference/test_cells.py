"""Rows held in Python become the cells that a file would have."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from mlxlab.data.labelled.rows import Rows, open_rows
from mlxlab.data.sources.open import Reading
from mlxlab.errors import DataError
from mlxlab.inference.predict import to_table


def test_values_are_written_as_in_a_file():
    row = {
        "a": 1,
        "b": 0.1,
        "c": True,
        "d": None,
        "e": float("nan"),
        "f": "x",
        "g": np.float32(0.1),
        "h": ["p", 2],
    }
    table = to_table([row], list(row))
    cells = [cell for [cell] in table.values()]
    assert cells == ["1", "0.1", "true", None, None, "x", "0.1", json.dumps(["p", 2])]


def test_a_data_frame_gives_the_cells_of_its_dicts():
    rows = [
        {"n": 3, "x": 1.5, "t": "a", "y": True},
        {"n": 4, "x": float("nan"), "t": None, "y": False},
    ]
    assert to_table(pd.DataFrame(rows), list(rows[0])) == to_table(rows, list(rows[0]))


def test_integers_that_pandas_made_floats_are_integers():
    frame = pd.DataFrame({"n": [3, None], "x": [3.0, 4.5], "all": pd.array([1, None], "Int64")})
    assert to_table(frame, ["n", "x", "all"]) == {
        "n": ["3", None],
        "x": ["3", "4.5"],
        "all": ["1", None],
    }


def test_texts_are_the_rows_of_a_model_that_reads_one_column():
    assert to_table(["a", "b"], ["text"]) == {"text": ["a", "b"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a text", "put it into a list"),
        (["a"], "row 1: expected a dict with x, y, got str"),
        ([{"x": 1}, 3], "row 2: expected a dict"),
    ],
)
def test_anything_else_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        to_table(rows, ["x", "y"])


def test_typed_values_are_written_as_from_a_parquet_file(tmp_path):
    values = {
        "at": [datetime(2020, 1, 2, 3, 4, 5, 500_000), datetime(2021, 1, 1)],
        "zone": [datetime(2020, 1, 2, 3, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)],
        "day": [date(2020, 1, 2), date(2021, 1, 1)],
        "raw": [b"caf\xc3\xa9", b"x"],
        "price": [Decimal("1.50"), Decimal("2.00")],
        "half": np.array([0.1, 2.5], np.float32),
        "list": [[1, 2], [3]],
        "fits": [True, False],
    }
    frame = pd.DataFrame(values)
    frame.to_parquet(tmp_path / "rows.parquet")
    rows = Rows([open_rows(str(tmp_path / "rows.parquet"), Reading(), tmp_path / "cache")])
    expected = rows.table(list(values), np.arange(2))
    assert to_table(frame, list(values)) == expected
    assert (
        to_table(
            [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)],
            list(values),
        )
        == expected
    )
    numpy_lists = [{"list": [np.int64(1), np.int64(2)]}, {"list": np.array([3])}]
    assert to_table(numpy_lists, ["list"]) == {"list": expected["list"]}


def test_words_that_the_run_counts_as_missing_are_missing():
    assert to_table(["a", "NA", ""], ["text"], ["NA", ""]) == {"text": ["a", None, None]}
    assert to_table(pd.DataFrame({"x": ["?", "b"]}), ["x"], ["?"]) == {"x": [None, "b"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", b"\xff"], "row 2: column 'x': .*decode"),
        (["a", "\ud800"], "row 2: column 'x': a lone surrogate"),
        (["a", pd.Timedelta(1)], "row 2: column 'x': a value of type Timedelta"),
    ],
)
def test_a_value_that_cannot_stand_in_a_cell_is_refused_where_it_is_read(values, message):
    for rows in (
        pd.DataFrame({"x": pd.Series(values, dtype=object)}),
        [{"x": value} for value in values],
    ):
        with pytest.raises(DataError, match=message):
            to_table(rows, ["x"])
        with pytest.raises(DataError, match="no column 'y'"):
            to_table(rows, ["y"])


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match="column 'x' occurs twice"):
        to_table(pd.DataFrame([[1, 2]], columns=["x", "x"]), ["x"])
