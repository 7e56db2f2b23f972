"""Rows held in Python become the cells that a file would have."""

import json

import numpy as np
import pandas as pd
import pytest

from mlxlab.errors import DataError
from mlxlab.inference.cells import to_table


def test_values_are_written_as_in_a_file():
    row = {"a": 1, "b": 0.1, "c": True, "d": None, "e": float("nan"), "f": "x", "g": np.float32(0.1), "h": ["p", 2]}
    table = to_table([row], list(row))
    cells = [cell for [cell] in table.values()]
    assert cells == ["1", "0.1", "true", None, None, "x", "0.1", json.dumps(["p", 2])]


def test_a_data_frame_gives_the_cells_of_its_dicts():
    rows = [{"n": 3, "x": 1.5, "t": "a", "y": True}, {"n": 4, "x": float("nan"), "t": None, "y": False}]
    assert to_table(pd.DataFrame(rows), ["n"]) == to_table(rows, ["n"])


def test_integers_that_pandas_made_floats_are_integers():
    frame = pd.DataFrame({"n": [3, None], "x": [3.0, 4.5], "all": pd.array([1, None], "Int64")})
    assert to_table(frame, ["n"]) == {"n": ["3", None], "x": ["3.0", "4.5"], "all": ["1", None]}


def test_texts_are_the_rows_of_a_model_that_reads_one_column():
    assert to_table(["a", "b"], ["text"]) == {"text": ["a", "b"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [("a text", "put it into a list"), (["a"], "expected dicts"), ([{"x": 1}, 3], "row 2: expected a dict")],
)
def test_anything_else_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        to_table(rows, ["x", "y"])
