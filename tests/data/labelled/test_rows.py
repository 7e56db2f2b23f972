"""Rows of every format: read correctly or refused in one line with their location, and never misread."""

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from mlxlab.data.labelled.rows import RowReading, open_rows, read_chunks
from mlxlab.errors import DataError


def reading(**options):
    defaults = {"delimiter": None, "encoding": None, "missing": [""], "config": None, "split": None, "revision": None}
    return RowReading(**defaults | options)


def open_file(folder, name, content, columns=None, on_error="strict", **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_rows(str(path), reading(**options), folder / "cache", on_error, columns)


def table_of(rows):
    return {name: rows.cells(name) for name in rows.columns}


CSV = 'id,text,label\n1,"hello, ""x""\nthere",pos\n\n2,,neg\n3,plain,pos\n'
TABLE = {"id": ["1", "2", "3"], "text": ['hello, "x"\nthere', None, "plain"], "label": ["pos", "neg", "pos"]}


def test_rows_of_a_csv_file(tmp_path):
    rows = open_file(tmp_path, "reviews.csv", CSV)
    assert len(rows) == 3
    assert table_of(rows) == TABLE
    assert rows.cells("id", np.array([2, 0, 2])) == ["3", "1", "3"]
    assert [rows.location(row) for row in range(3)] == [f"{tmp_path}/reviews.csv:{line}" for line in (2, 5, 6)]
    with pytest.raises(
        DataError, match=r"csv:1: no column 'texts', expected one of id, text, label; did you mean text"
    ):
        rows.column("texts")


def test_chunks_hold_the_same_rows(tmp_path):
    rows = open_file(tmp_path, "reviews.csv", CSV)
    chunks = list(read_chunks(str(tmp_path / "reviews.csv"), reading(), 2))
    assert [len(locations) for _, locations in chunks] == [2, 1]
    assert {name: [cell for table, _ in chunks for cell in table[name]] for name in rows.columns} == TABLE
    assert [place for _, places in chunks for place in places] == [rows.location(row) for row in range(3)]


def test_rows_of_json_lines(tmp_path):
    content = '{"a": 1, "b": [1, "x"]}\n\n{"a": 2.50, "c": true}\n{"a": null, "c": false}\n'
    rows = open_file(tmp_path, "a.jsonl", content)
    expected = {"a": ["1", "2.5", None], "b": ['[1, "x"]', None, None], "c": [None, "true", "false"]}
    assert table_of(rows) == expected
    assert rows.location(1) == f"{tmp_path}/a.jsonl:3"


def test_rows_of_a_parquet_file(tmp_path):
    columns = {
        "int": [1, None],
        "float": [0.1, float("nan")],
        "float32": pyarrow.array([0.1, 2], pyarrow.float32()),
        "bool": [True, None],
        "time": pyarrow.array([datetime(2020, 1, 2, 3, 4, 5, 500), None], pyarrow.timestamp("ns")),
        "utc": pyarrow.array([datetime(2020, 1, 2), None], pyarrow.timestamp("ms", "UTC")),
        "date": [date(2020, 1, 2), None],
        "decimal": [Decimal("1.50"), None],
        "list": [["a", None], []],
        "text": ["", "\u00e4"],
        "dictionary": pyarrow.array(["u", None]).dictionary_encode(),
        "binary": [b"abc", None],
        "null": pyarrow.nulls(2),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    rows = open_rows(str(tmp_path / "a.parquet"), reading(), tmp_path / "cache")
    assert table_of(rows) == {
        "int": ["1", None],
        "float": ["0.1", "NaN"],
        "float32": ["0.1", "2.0"],
        "bool": ["true", None],
        "time": ["2020-01-02T03:04:05.0005", None],
        "utc": ["2020-01-02T00:00:00Z", None],
        "date": ["2020-01-02", None],
        "decimal": ["1.50", None],
        "list": ['["a", null]', "[]"],
        "text": [None, "\u00e4"],
        "dictionary": ["u", None],
        "binary": ["abc", None],
        "null": [None, None],
    }
    assert rows.location(1) == f"{tmp_path}/a.parquet:row 2"


@pytest.mark.parametrize(("table", "count", "label"), [
    ("wine", 178, "class_0"),
    ("breast_cancer", 569, "malignant"),
    ("digits", 1797, "0"),
    ("iris", 150, "setosa"),
    ("diabetes", 442, "151.0"),
])  # fmt: skip
def test_rows_of_scikit_learn(tmp_path, table, count, label):
    rows = open_rows(f"sklearn:{table}", reading(), tmp_path)
    assert len(rows) == count
    assert rows.columns[-1] == "target"
    assert rows.cells("target", np.array([0])) == [label]
