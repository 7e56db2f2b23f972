"""Rows of every format: read correctly or refused in one line with their location, and never misread."""

import gzip
import json
import multiprocessing
import os
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from mlxlab.data.labelled.rows import open_rows, read_chunks
from mlxlab.data.text.document import ErrorBudget
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, UserError
from support.rows import MUTATIONS, mutate, plain_rows, row_reading, write_rows
from support.text import pack

SUFFIXES = [
    "csv",
    "csv.gz",
    "csv.zst",
    "tsv",
    "tsv.gz",
    "jsonl",
    "jsonl.gz",
    "jsonl.zst",
    "parquet",
]


def write(folder, name, content):
    path = folder / name
    if isinstance(content, dict):
        content = pyarrow.table(content)
    if isinstance(content, pyarrow.Table):
        parquet.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def open_file(folder, name, content, columns=None, on_error="strict", **options):
    path = write(folder, name, content)
    return open_rows(str(path), row_reading(**options), folder / "cache", on_error, columns)


def table_of(rows):
    return {name: rows.cells(name) for name in rows.columns}


CSV = 'id,text,label\n1,"hello, ""x""\nthere",pos\n\n2,,neg\n3,plain,pos\n'
TABLE = {
    "id": ["1", "2", "3"],
    "text": ['hello, "x"\nthere', None, "plain"],
    "label": ["pos", "neg", "pos"],
}


def test_rows_of_a_csv_file(tmp_path):
    rows = open_file(tmp_path, "reviews.csv", CSV)
    assert len(rows) == 3
    assert table_of(rows) == TABLE
    assert rows.cells("id", np.array([2, 0, 2])) == ["3", "1", "3"]
    assert rows.column("text").null_count == 1
    assert [rows.location(row) for row in range(3)] == [
        f"{tmp_path}/reviews.csv:{line}" for line in (2, 5, 6)
    ]
    with pytest.raises(
        DataError,
        match=r"csv:1: no column 'texts', expected one of id, text, label",
    ):
        rows.column("texts")
    with pytest.raises(DataError, match=r"no column 'id,label', "):
        rows.column("id,label")


def test_chunks_hold_the_same_rows(tmp_path):
    rows = open_file(tmp_path, "reviews.csv", CSV)
    chunks = list(read_chunks(str(tmp_path / "reviews.csv"), row_reading(), 2))
    assert [len(locations) for _, locations, _ in chunks] == [2, 1]
    assert {
        name: [cell for table, *_ in chunks for cell in table[name]] for name in rows.columns
    } == TABLE
    assert [number for *_, numbers in chunks for number in numbers] == [1, 2, 3]
    assert [place for _, places, _ in chunks for place in places] == [
        rows.location(row) for row in range(3)
    ]


@pytest.mark.parametrize(
    ("suffix", "contents"),
    [
        ("csv", ["a,b\n1,2\nx,y,z\n\n3,4\n", "a,b\n5,6\n7\n8,9\n"]),
        ("jsonl", ['{"a": 1}\n[]\n\n{"a": 3}\n', '{"a": 5}\n{\n{"a": 8}\n']),
        ("parquet", [{"a": [1.0, float("inf"), 3.0]}, {"a": [5.0, float("nan"), 8.0]}]),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_the_number_of_a_row_counts_malformed_ones(tmp_path, suffix, contents, size):
    for index, content in enumerate(contents):
        write(tmp_path, f"{index}.{suffix}", content)
    errors = ErrorBudget("skip", max_fraction=0.5)
    chunks = read_chunks(str(tmp_path), row_reading(), size, ["a"], errors=errors)
    numbers = [number for *_, numbers in chunks for number in numbers]
    assert numbers == ([1, 3, 4, 5, 6] if suffix == "parquet" else [1, 3, 4, 6])


def test_rows_of_json_lines(tmp_path):
    content = '{"a": 1, "b": [1, "x"]}\n\n{"a": 2.50, "c": true}\n{"a": null, "c": false}\n{"a": NaN, "d": {"e": 1}}\n'
    columns = {
        "a": ["1", "2.5", None, "NaN"],
        "b": ['[1, "x"]', None, None, None],
        "c": [None, "true", "false", None],
    }
    rows = open_file(tmp_path, "a.jsonl", content, columns=["a", "b", "c"])
    assert table_of(rows) == columns
    assert rows.location(1) == f"{tmp_path}/a.jsonl:3"
    names = ["a", "b", "c"]
    tables = [
        table for table, *_ in read_chunks(str(tmp_path / "a.jsonl"), row_reading(), 1, names)
    ]
    assert {name: [table[name][0] for table in tables] for name in names} == columns
    rows = open_file(tmp_path, "a.jsonl", content.replace('{"e": 1}', '"x"'))
    assert rows.columns == ("a", "b", "c", "d")


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
    rows = open_file(tmp_path, "a.parquet", columns)
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
    rows = open_rows(f"sklearn:{table}", row_reading(), tmp_path)
    assert len(rows) == count
    assert rows.columns[-1] == "target"
    assert rows.cells("target", np.array([0])) == [label]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_the_same_rows(tmp_path, suffix):
    table = plain_rows(300)
    path = write_rows(tmp_path / f"a.{suffix}", table)
    rows = open_rows(str(path), row_reading(), tmp_path / "cache")
    assert table_of(rows) == table
    path = write_rows(tmp_path / "folder" / f"b.{suffix}", table)
    write_rows(
        tmp_path / "folder" / f"a.{suffix}", {name: cells[:7] for name, cells in table.items()}
    )
    rows = open_rows(str(tmp_path / "folder"), row_reading(), tmp_path / "cache")
    assert table_of(rows) == {name: cells[:7] + cells for name, cells in table.items()}
    first = rows.location(0).rpartition(":")[2]
    assert rows.location(7) == f"{path}:{first}"


HEADER = "text,label\n"
MEGABYTE = "x" * 2**20

# (file, content, options, the message after the path and a colon)
MALFORMED = {
    "an empty file": ("a.csv", "", {}, "1: empty"),
    "a header only": ("a.csv", HEADER, {}, "2: no rows"),
    "blank lines only": ("a.csv", "\n\n", {}, "1:1: column 1 of 1 has no name"),
    "a field too many": ("a.csv", HEADER + "1,2,3\n", {}, "2:1: a row of 3 fields, expected 2 as in the header"),
    "a field too few": ("a.csv", HEADER + "1\n", {}, "2:1: a row of 1 fields, expected 2"),
    "a column twice": ("a.csv", "a,b,a\n1,2,3\n", {}, "1:1: column 'a' twice in the header (fields 1 and 3)"),
    "a column without name": ("a.csv", "a, ,b\n1,2,3\n", {}, "1:1: column 2 of 3 has no name"),
    "a quote never closed": ("a.csv", HEADER + 'a,b\nc,"d\ne,f\n', {}, "3:3: this quote is never closed"),
    "a quote closed too late": (
        "a.csv", HEADER + '"a,b\n"c",d\n', {}, "2:1: this quoted field ends at 3:2 with 'c' after it; is its closing"
    ),
    "a quote inside a field": ("a.csv", HEADER + '5" disk,b\n', {}, "2:2: a quote inside a field"),
    "text after a quote": ("a.csv", HEADER + '"a" ,b\n', {}, "2:4: ',' expected after a closing quote, got ' '"),
    "a NUL": ("a.csv", HEADER + "a,b\nab\0,c\n", {}, "3:3: control character 0x00"),
    "a control character": ("a.csv", HEADER + 'a,"b\nc\x1b"\n', {}, "3:2: control character 0x1b"),
    "latin-1": ("a.csv", (HEADER + "\u00e4\u00f6,b\n").encode("latin-1"), {}, "2:1: byte 0xe4 is not UTF-8; data."),
    "broken UTF-8": ("a.csv", HEADER.encode() + "\u00e4b".encode() + b"\xff,b\n", {}, "2:3: byte 0xff is not UTF-8"),
    "UTF-16 without mark": ("a.csv", HEADER.encode("utf-16-le"), {}, "1:1: this is UTF-16 text without a byte order"),
    "UTF-16 cut off": ("a.csv", HEADER.encode("utf-16") + b"a", {}, "2: after 11 bytes: not in its encoding"),
    "a wrong encoding": ("a.csv", (HEADER + "\x81,b\n").encode("latin-1"), {"encoding": "cp1252"}, "1:1: not in its"),
    "UTF-8 read as latin-1": ("a.csv", "\ufeff" + HEADER, {"encoding": "latin-1"}, "1:1: a byte order mark of UTF-8"),
    "UTF-8 read as cp1252": ("a.csv", HEADER + "\u00e4,b\n", {"encoding": "cp1252"}, "1: this is UTF-8, but"),
    "an image": ("a.csv", b"\x89PNG\r\n\x1a\n\0\0", {}, "1:1: this is a PNG image; expected a CSV file"),
    "zip": ("a.jsonl", b"PK\x03\x04....", {}, "1:1: this is a zip archive: unpack it first; expected JSON lines"),
    "binary data": ("a.csv", bytes(99), {}, "1:1: this is binary data"),
    "an HTML page": ("a.csv", " <!doctype html>\n<html>\n", {}, "1:1: this is an HTML or XML page; expected a CSV"),
    "a line of 200 MB": ("a.csv", lambda: f"{HEADER}{MEGABYTE * 200},b\n", {}, "2: a record of more than 16777216"),
    "a long text": ("a.csv", lambda: f'{HEADER}a,b\nc,"{MEGABYTE * 17}"\n', {}, "3: a record of more than 16777216"),
    "a long header": ("a.csv", lambda: MEGABYTE * 17, {}, "1:1: a record of more than 16777216 bytes"),
    "a wrong delimiter": ("a.csv", "a;b\n1;2\n", {"delimiter": ","}, "1:1: one column 'a;b', expected ',' between names"),
    "commas in .tsv": ("a.tsv", "a,b\n1,2\n", {}, "1:1: one column 'a,b', expected '\\t' between names"),
    "a delimiter guessed wrong": (
        "a.csv", "a;b,c\n1;x,2;3,4\n", {}, "2:1: a row of 3 fields, expected 2 as in the header"
    ),
    "commas in a single column": ("a.csv", "text\na, b\n", {}, "2:1: a row of 2 fields, expected 1 as in the header"),
    "not gzip": ("a.csv.gz", HEADER, {}, "1:1: zlib inflate failed"),
    "half of a gzip file": ("a.csv.gz", gzip.compress(HEADER.encode())[:-9], {}, "1:1: Truncated compressed stream"),
    "a bomb": ("a.csv.gz", gzip.compress((HEADER + f"{MEGABYTE},b\n" * 70).encode()), {}, ": a decompression bomb"),
    "an empty JSON file": ("a.jsonl", "", {}, "1: empty"),
    "blank JSON lines": ("a.jsonl", " \n\n", {}, "2: no rows"),
    "a list": ("a.jsonl", "[1]\n", {}, "1: [1] is not an object"),
    "half an object": ("a.jsonl", '{"a": 1}\n{"a":', {}, "2: not JSON: Expecting value at column 6 (truncated?)"),
    "an object without its end": ("a.jsonl", '{"a": 1\n', {}, "1: not JSON: Expecting ',' delimiter at column 8 (tr"),
    "mixed types": ("a.jsonl", '{"a": 1}\n{"a": "x"}\n', {}, "2: mixed types: column 'a' holds \"x\", text; a number"),
    "a key twice": ("a.jsonl", '{"a": 1, "a": 2}\n', {}, '1: the key "a" occurs twice'),
    "an object in a column": ("a.jsonl", '{"a": {"b": 1}}\n', {}, "1: column 'a': an object"),
    "deep objects": ("a.jsonl", '{"a":' * 100_000 + "\n", {}, "1: not JSON that can be read: RecursionError"),
    "deep lists": ("a.jsonl", '{"a":' + "[" * 10**5 + "]" * 10**5 + "}", {}, "1: not JSON that can be read: Recursion"),
    "a lone surrogate": ("a.jsonl", '{"a": "\\ud800"}\n', {}, "1: column 'a': a lone surrogate (\\ud800)"),
    "a key without a name": ("a.jsonl", '{"": 1}\n', {}, '1: a key "", expected a name'),
    "an infinite number": ("a.jsonl", '{"a": 1e999}\n', {}, "1: column 'a': expected a finite number"),
    "a number of 5,000 digits": ("a.jsonl", '{"a": ' + "9" * 5000 + "}\n", {}, "1: not JSON that can be read"),
    "JSON not in UTF-8": ("a.jsonl", b'{"a": "\xff"}\n', {}, "1: byte 0xff is not UTF-8"),
    "a long JSON line": ("a.jsonl", lambda: f'{{"a": "{MEGABYTE * 17}"}}\n', {}, "1: a record of more than 16777216"),
    "many keys": ("a.jsonl", json.dumps(dict.fromkeys(map(str, range(1001)), 1)), {}, "1: more than 1000 different "),
    "not parquet": ("a.parquet", b"PAR1....", {}, "1: not parquet"),
    "an empty parquet file": ("a.parquet", b"", {}, "1: empty"),
    "a struct": ("a.parquet", {"a": [{"x": 1}]}, {}, "1: column 'a' holds struct<x: int64>, expected text, numbers"),
    "no rows": ("a.parquet", {"a": pyarrow.array([], "int64")}, {}, "2: no rows"),
    "a parquet column twice": (
        "a.parquet", pyarrow.table([[1], [2]], ["a", "a"]), {}, "1: column 'a' occurs twice"
    ),
    "bytes that are no text": ("a.parquet", {"a": [b"a", b"\xff"]}, {}, "row 2: column 'a': "),
    "an infinite value": ("a.parquet", {"a": [1.0, float("inf")]}, {}, "row 2: column 'a': expected a finite number"),
    "a duration": ("a.parquet", {"a": pyarrow.array([1], pyarrow.duration("s"))}, {}, "row 1: column 'a': timedelta"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_in_one_line_with_its_location(tmp_path, case):
    name, content, options, message = MALFORMED[case]
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        open_file(tmp_path, name, content() if callable(content) else content, **options)
    got = str(caught.value)
    assert got.startswith(f"{tmp_path}/{name}:")
    assert (
        message in got
        if message.startswith(":")
        else got.removeprefix(f"{tmp_path}/{name}:").startswith(message)
    )
    assert "\n" not in got
    assert len(got) < 500 + len(str(tmp_path))
    assert time.perf_counter() - start < 20
    assert [path.name for path in (tmp_path / "cache").glob("*")] == [], "nothing is left half-made"
    with pytest.raises(DataError):
        list(read_chunks(str(tmp_path / name), row_reading(**options), 10))


def test_a_column_that_does_not_exist_is_refused_with_the_nearest_name(tmp_path):
    for suffix in SUFFIXES:
        path = write_rows(tmp_path / f"a.{suffix}", plain_rows(9))
        with pytest.raises(
            DataError,
            match=rf"a.{suffix}:1: no column 'texts', .* number, text, ",
        ):
            open_rows(str(path), row_reading(), tmp_path / "cache", "strict", ["texts"])
    with pytest.raises(DataError, match=r"sklearn:wine: no column 'targte', "):
        open_rows("sklearn:wine", row_reading(), tmp_path, "strict", ["targte"])


@pytest.mark.parametrize(("source", "options", "message"), [
    ("a.csv", {"encoding": "klingon"}, "encoding=klingon: expected the name of an encoding such as utf-8"),
    ("a.csv", {"encoding": "base64"}, "encoding=base64"),
    ("a.csv", {"split": "train"}, "split=train: only for Hugging Face data sets"),
    ("sklearn:wine", {"config": "x"}, "config=x: only for Hugging Face data sets"),
])  # fmt: skip
def test_an_option_that_does_not_go_with_the_source_is_refused(tmp_path, source, options, message):
    write(tmp_path, "a.csv", CSV)
    with pytest.raises(ConfigError, match=message):
        open_rows(
            source if ":" in source else str(tmp_path / source), row_reading(**options), tmp_path
        )


def test_a_source_that_does_not_exist_is_refused_with_the_nearest_name(tmp_path):
    write(tmp_path, "reviews.csv", CSV)
    write(tmp_path, "notes.txt", "text")
    for source, message in {
        f"{tmp_path}/revews.csv": r"did you mean .*reviews\.csv",
        "sklearn:wien": "expected one of breast_cancer, ",
    }.items():
        with pytest.raises(InputNotFoundError, match=message):
            open_rows(source, row_reading(), tmp_path / "cache")
    for name, message in {
        "notes.txt": r"_in \.csv.*parquet$",
        "a.xlsx": "parquet; a spreadsheet .* as CSV",
    }.items():
        with pytest.raises(DataError, match=message.replace("_in", "a file that ends in")):
            open_file(tmp_path, name, "text")
    assert len(open_rows(str(tmp_path), row_reading(), tmp_path / "cache")) == 3, (
        "a text file next to it is ignored"
    )


def test_files_of_other_columns_are_refused(tmp_path):
    for suffix in ("csv", "parquet"):
        folder = tmp_path / suffix
        write_rows(folder / f"a.{suffix}", {"text": ["x"], "label": ["y"]})
        write_rows(folder / f"b.{suffix}", {"text": ["x"], "lable": ["y"]})
        message = rf"b.{suffix}:1: columns text, lable; expected text, label as in .*a.{suffix}"
        with pytest.raises(DataError, match=message):
            open_rows(str(folder), row_reading(), tmp_path / "cache")


@pytest.mark.parametrize(("encoding", "option"), [
    ("utf-8-sig", None), ("utf-16", None), ("utf-16-le", "utf-16-le"), ("latin-1", "latin-1"), ("cp1252", "cp1252"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["csv", "jsonl.zst"])
def test_encodings(tmp_path, encoding, option, suffix):
    texts = ["gr\u00fc\u00df", 'a "quoted"\nline'] * 5000  # larger than a block
    content = "text,label\n" + "".join(
        '"' + text.replace('"', '""') + '",\u00e4\n' for text in texts
    )
    if suffix.startswith("jsonl"):
        content = "".join(
            json.dumps({"text": text, "label": "\u00e4"}, ensure_ascii=False) + "\n"
            for text in texts
        )
    rows = open_file(
        tmp_path, f"a.{suffix}", pack(suffix, content.encode(encoding)), encoding=option
    )
    assert rows.cells("text") == texts
    assert set(rows.cells("label")) == {"\u00e4"}


@pytest.mark.parametrize(("content", "options"), [
    ("a;b\n1,5;2\n", {}),
    ("a\tb\n1,5\t2\n", {}),
    ("a|b\r\n1,5|2\r\n", {}),
    ("a~b\n1,5~2", {"delimiter": "~"}),
    ('a,b\n"1,5",2\n\n \n', {}),
    ('" a","b "\r"1,5",2\r', {}),
])  # fmt: skip
def test_delimiters_and_line_ends(tmp_path, content, options):
    assert table_of(open_file(tmp_path, "a.csv", content, **options)) == {"a": ["1,5"], "b": ["2"]}


def test_a_quote_in_tab_separated_text_is_a_character(tmp_path):
    assert open_file(tmp_path, "a.tsv", 'text\tlabel\n5" disk\tx\n').cells("text") == ['5" disk']


def test_cells_that_count_as_missing(tmp_path):
    for name, content in [
        ("a.csv", "a,b\n,NA\n-,0\n"),
        ("a.jsonl", '{"a": "", "b": "NA"}\n{"a": "-", "b": "0"}\n'),
    ]:
        assert table_of(open_file(tmp_path, name, content)) == {"a": [None, "-"], "b": ["NA", "0"]}
        rows = open_file(tmp_path, name, content, missing=["NA", "-", "0"])
        assert table_of(rows) == {"a": [None, None], "b": [None, None]}


def test_malformed_rows_are_skipped_up_to_one_percent_and_counted(tmp_path):
    for name, good, bad in [
        ("a.csv", "x,y\n", '"x" y,z\n'),
        ("a.jsonl", '{"a": "x", "b": "y"}\n', '{"a": 1}\n'),
    ]:
        start = "a,b\n" if name == "a.csv" else ""
        rows = open_file(tmp_path, name, start + good * 150 + bad + good * 150, on_error="skip")
        assert table_of(rows) == {"a": ["x"] * 300, "b": ["y"] * 300}
        again = open_rows(str(tmp_path / name), row_reading(), tmp_path / "cache", "skip")
        assert again.description == rows.description
        remedy = "data.on_error=skip data.max_left_out=0.02 leaves them out"
        assert rows.description[0].endswith("; skipped 1 malformed row")
        with pytest.raises(
            DataError,
            match=rf"4 of 304 records are malformed, more than 1 %; {remedy}; the first: .*a\.\w+:15",
        ):
            open_file(tmp_path, name, start + good * 150 + bad * 4 + good * 150, on_error="skip")
        skipping = open_rows(
            str(tmp_path / name), row_reading(), tmp_path / "cache", "skip", max_left_out=0.02
        )
        assert (len(skipping), skipping.malformed) == (300, 4)


@pytest.mark.parametrize("suffix", ["csv.gz", "jsonl.zst", "parquet"])
def test_a_truncated_file_is_more_than_a_malformed_row(tmp_path, suffix):
    path = write_rows(tmp_path / f"a.{suffix}", plain_rows(3000))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"a\.{suffix}:\d+: (after|not parquet)"):
        open_rows(str(path), row_reading(), tmp_path / "cache", "skip")


@pytest.mark.parametrize("byte", [b"\xe9", b"\x01"])
def test_a_record_of_several_lines_with_a_byte_that_is_no_text_is_one(tmp_path, byte):
    content = (
        b"a,b\n"
        + b"x,y\n" * 198
        + b'"first '
        + byte
        + b'\nsecond, ""quoted""\nthird",y\n'
        + b"x,y\n" * 10
    )
    rows = open_file(tmp_path, "a.csv", content, on_error="skip")
    assert (len(rows), rows.malformed) == (208, 1)
    assert rows.location(198) == f"{tmp_path}/a.csv:203"
    with pytest.raises(
        DataError, match=rf"a\.csv:200:8: (byte 0x{byte.hex()} is not UTF-8|control character)"
    ):
        open_rows(str(tmp_path / "a.csv"), row_reading(), tmp_path / "cache")


def test_a_quote_that_swallows_the_rest_of_a_file_is_more_than_one_row(tmp_path):
    content = HEADER + "a,b\n" * 500 + '"a,b\n' + "a,b\n" * 500
    with pytest.raises(
        DataError,
        match=r"501 of 1,001 records are malformed.*a.csv:502:1: this quote is never closed",
    ):
        open_file(tmp_path, "a.csv", content, on_error="skip")


def test_a_changed_file_is_read_again_and_a_moved_one_is_not(tmp_path):
    first = open_file(tmp_path, "a.csv", CSV)
    changed = open_file(tmp_path, "a.csv", CSV.replace("pos", "bad"))
    assert changed.cells("label") == ["bad", "neg", "bad"]
    assert changed.fingerprint != first.fingerprint
    assert open_file(tmp_path, "a.csv", CSV, missing=["pos"]).cells("label") == [None, "neg", None]
    gaps = open_file(tmp_path, "gaps.csv", HEADER + "good,NA\n,pos\n", missing=["NA"])
    assert (gaps.cells("text"), gaps.cells("label")) == (["good", None], [None, "pos"])
    caches = set((tmp_path / "cache").iterdir())
    moved = open_file(tmp_path, "b.csv", CSV)
    assert moved.fingerprint == first.fingerprint
    assert set((tmp_path / "cache").iterdir()) == caches
    assert moved.location(0) == f"{tmp_path}/b.csv:2"


def test_a_damaged_cache_is_built_again_with_a_warning(tmp_path, caplog):
    open_file(tmp_path, "a.csv", CSV)
    (cache,) = (tmp_path / "cache").iterdir()
    good = cache.read_bytes()
    for damaged in [
        b"",
        good[:40],
        good[:-100],
        good + b"x",
        good.replace(b"plain", b"other"),
        bytes(len(good)),
    ]:
        cache.write_bytes(damaged)
        caplog.clear()
        assert table_of(open_file(tmp_path, "a.csv", CSV)) == TABLE
        assert "is corrupt" in caplog.text
        assert cache.read_bytes() == good
    cache.unlink()
    cache.symlink_to("/dev/zero")
    assert table_of(open_file(tmp_path, "a.csv", CSV)) == TABLE


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert table_of(open_file(tmp_path, "a.csv", CSV)) == TABLE
    assert "could not be written" in caplog.text


def read_table(path):
    return table_of(open_rows(str(path), row_reading(), path.parent / "cache"))


def test_processes_build_the_same_cache_at_once(tmp_path):
    table = plain_rows(2000)
    path = write_rows(tmp_path / "a.csv", table)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(read_table, [path] * 2) == [table] * 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def run_mutations(folder: Path, suffix: str, count: int) -> None:
    """Rows or a UserError for each mutation; rows from before the mutated byte are the original ones."""
    table = plain_rows(60)
    data = write_rows(folder / f"good.{suffix}", table).read_bytes()
    path = folder / f"a.{suffix}"
    for seed in range(count):
        mutated, intact = mutate(seed, data, suffix)
        path.write_bytes(mutated)
        start = time.perf_counter()
        message, got = "", []
        try:
            chunks = read_chunks(str(path), row_reading(), 1)
            got = [{name: cells[0] for name, cells in chunk.items()} for chunk, *_ in chunks]
        except UserError as error:
            message = str(error)
        assert "\n" not in message, seed
        if not message:
            for row in range(min(intact, len(got))):
                assert all(got[row].get(name) == cells[row] for name, cells in table.items()), (
                    seed,
                    row,
                )
            assert len(got) >= intact, seed
            assert len(open_rows(str(path), row_reading(), folder / "cache")) == len(got), seed
            for cached in (folder / "cache").iterdir():
                os.unlink(cached)
        assert time.perf_counter() - start < 10, seed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "count", [len(MUTATIONS) * 2, pytest.param(1000, marks=pytest.mark.fault_injection)]
)
def test_a_mutated_file_gives_rows_or_one_line(tmp_path, suffix, count):
    run_mutations(tmp_path, suffix, count)
