"""Rows of every format: read correctly or refused in one line with their location, and never misread."""

import numpy as np
import pytest

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
