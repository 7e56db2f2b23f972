"""26 malformed CSV files: each is read correctly or refused with its position; none is misread silently."""

import csv
import gzip
import os
import socket
import time
import tracemalloc

import pytest

from mlxlab.data.input_files import read_input_file
from mlxlab.data.strict_csv import parse_csv
from mlxlab.data.titanic.passenger import parse_passengers
from mlxlab.errors import DataError, InputNotFoundError
from support.titanic import csv_text, real_rows

ROWS = real_rows()[:100]
SOUND = csv_text(ROWS)
LINES = SOUND.splitlines()
ROW = 51  # the row with the fault, in line 52
HEADER = LINES[0]


def read_passengers(path, labelled):
    return parse_passengers(read_input_file(path), path, labelled)


def with_line(number, line):
    return "\n".join([*LINES[: number - 1], line, *LINES[number:]]) + "\n"


def with_value(column, value, row=ROW):
    rows = list(ROWS)
    rows[row - 1] = rows[row - 1]._replace(**{column: value})
    return csv_text(rows)


def without_column(name):
    index = HEADER.split(",").index(name)
    rows = [
        [value for i, value in enumerate(row) if i != index] for row in ([HEADER.split(","), *ROWS])
    ]
    return csv_text(rows).split("\n", 1)[1]


def big_name():
    head, tail = with_value("name", "@").split("@")
    return head + "a" * 2**26 + tail


# fault -> (the file's content, the line:column of the message, a word in it)
MALFORMED = {
    "1 an empty file": ("", "1:1", "empty"),
    "2 header only": (HEADER + "\n", "2:1", "no rows"),
    "3 a missing column": (without_column("Age"), "1:1", "Age"),
    "4 a doubled column": (SOUND.replace("Parch", "SibSp", 1), "1:48", "SibSp occurs twice"),
    "5 one field too many": (with_line(52, LINES[51] + ",x"), None, "13 fields, expected 12"),
    "6 a row of 3 fields": (with_line(52, "51,0,3"), "52:6", "3 fields, expected 12"),
    "7 a quote never closed": (
        with_line(52, '51,0,3,"Panula, Master'),
        "52:8",
        "closing quote missing",
    ),
    "7 the last quote never closed": (SOUND[: SOUND.rindex('",')], "101:9", "never closed"),
    "8 invalid UTF-8": (
        with_value("name", "@").encode().replace(b"@", b"a\xff\xfe"),
        "52:9",
        "0xff",
    ),
    "9 UTF-16": (SOUND.encode("utf-16"), "1:1", "UTF-16"),
    "11 a NUL": (with_value("name", "a\0b"), "52:9", "0x00"),
    "12 label yes": (with_value("survived", "yes"), "52:4", "Survived is 'yes'"),
    "13 label 7": (with_value("survived", 7), "52:4", "Survived is '7'"),
    "14 a missing label": (with_value("survived", None), "52:4", "Survived is nothing"),
    "15 an infinite age": (with_value("age", "inf"), None, "Age is 'inf'"),
    "15 a fare of nan": (with_value("fare", "nan"), None, "Fare is 'nan'"),
    "16 a fare of 1e999": (with_value("fare", "1e999"), None, "Fare is '1e999'"),
    "17 semicolons": (SOUND.replace(",", ";"), "1:12", "semicolons"),
    "18 a name of 64 MB": (big_name, "52:8", "characters"),
    "18 a name of 64 MB in quotes": (
        lambda: big_name().replace("aaa", '"aa', 1),
        "52:8",
        "characters",
    ),
    "19 a PNG image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "1:1", "PNG"),
    "20 the end cut off": (SOUND[:-20], None, "fields, expected 12"),
    "21 an HTML page": ("<!DOCTYPE html>\n<html><title>404</title></html>", "1:1", "HTML"),
    "22 rows twice": (SOUND + "\n".join(LINES[1:11]) + "\n", "102:1", "first used in line 2"),
    "23 one label only": (
        csv_text(row._replace(survived=1) for row in ROWS),
        "2:13",
        "Survived is 1 in all 100 rows",
    ),
    "25 gzip": (gzip.compress(SOUND.encode()), "1:1", "gzip"),
}
HARMLESS = {
    "10 a byte order mark": ("\ufeff" + SOUND, None),
    "24 a formula for a name": (
        with_value("name", '=HYPERLINK("http://x","y")'),
        '=HYPERLINK("http://x","y")',
    ),
    "26 carriage returns": (SOUND.replace("\n", "\r"), None),
    "CR LF": (SOUND.replace("\n", "\r\n"), None),
    "no break at the end": (SOUND.rstrip("\n"), None),
    "blank lines at the end": (SOUND + "\n\r\n  \n", None),
}


def write(tmp_path, content):
    content = content() if callable(content) else content
    path = tmp_path / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_in_one_line_with_its_position(tmp_path, case):
    content, position, word = MALFORMED[case]
    path = write(tmp_path, content)
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        read_passengers(path, labelled=True)
    assert time.perf_counter() - start < 2
    message = str(caught.value)
    line, column = message.removeprefix(f"{path}:").split(":")[:2]
    assert message.startswith(f"{path}:{position or 52 if case[:2] != '20' else 101}")
    assert int(line) > 0
    assert int(column) > 0
    assert word in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("case", HARMLESS)
def test_an_unusual_but_valid_file_is_read(tmp_path, case):
    content, name = HARMLESS[case]
    rows = read_passengers(write(tmp_path, content), labelled=True)
    assert rows == [row._replace(name=name) if name and row.id == ROW else row for row in ROWS]


def test_columns_may_be_in_any_order_and_mixed_with_unknown_ones(tmp_path):
    table = [[*fields[::-1], "more"] for fields in csv.reader(LINES)]
    path = tmp_path / "train.csv"
    with path.open("w") as file:
        csv.writer(file).writerows(table)
    assert read_passengers(path, labelled=True) == list(ROWS)


def test_a_huge_file_is_read_within_bounded_memory(tmp_path):
    path = write(tmp_path, lambda: big_name() * 3)
    tracemalloc.start()
    with pytest.raises(DataError):
        read_passengers(path, labelled=True)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20  # of 192 MB
    tracemalloc.stop()


def test_a_file_of_too_many_rows_is_refused(tmp_path):
    rows = "\n".join(f'{i},{i % 2},3,"A, Mr. B",male,,0,0,1,7.25,,S' for i in range(1, 600_000))
    with pytest.raises(DataError, match="longer than"):
        read_passengers(write(tmp_path, HEADER + "\n" + rows), labelled=True)


@pytest.mark.parametrize(
    ("column", "values"),
    {
        "id": [0, -1, 1.5, "abc", 10**30, "", "\u0661"],
        "pclass": [0, 4, "1st", 1.0, ""],
        "sex": ["", "f", "Male"],
        "age": [-1, "1e1", "0x10", "1_0", 131, "NaN", "29 years", "\u0662\u0669"],
        "sibsp": [-1, 51, "", "two"],
        "parch": [-1, 0.5],
        "ticket": [""],
        "name": [""],
        "fare": [-0.01, "$7", "1e9", "inf", 100_001],
        "embarked": ["X", "s", "Southampton"],
    }.items(),
)
def test_a_value_out_of_bounds_is_refused(tmp_path, column, values):
    for value in values:
        with pytest.raises(DataError, match=r"train\.csv:52:\d+: \w+ is "):
            read_passengers(write(tmp_path, with_value(column, value)), labelled=True)


def test_labels_may_be_absent_where_none_are_needed(tmp_path):
    path = write(tmp_path, without_column("Survived"))
    assert read_passengers(path, labelled=False) == [row._replace(survived=None) for row in ROWS]
    with pytest.raises(DataError, match="missing columns: Survived"):
        read_passengers(path, labelled=True)


def parse_text(text):
    return [[field.text for field in row] for row in parse_csv(text.encode(), "x")]


def test_rows_are_parsed_as_by_the_csv_module():
    for line in [*LINES, ",", '""', '"a""b",,"c, d"', "a b,c", '"",""']:
        assert parse_text(line) == [next(csv.reader([line]))]


def test_a_quoted_field_may_span_lines():
    text = 'a,b\n"one\n\ntwo",2\n3,"\n"\n"x ""y""\n,z",4\n'
    assert parse_text(text) == list(csv.reader(text.splitlines(keepends=True), strict=True))
    assert parse_text(text.replace("\n", "\r\n")) == parse_text(text)


def test_positions_count_the_lines_inside_quoted_fields():
    rows = list(parse_csv(b'a,b\n"one\ntwo",2\n3,4\n', "x"))
    assert [(field.line, field.column) for row in rows for field in row] == [
        (1, 1),
        (1, 3),
        (2, 1),
        (3, 6),
        (4, 1),
        (4, 3),
    ]


def test_a_quoted_name_with_a_line_break_is_read(tmp_path):
    name = "Panula, Master. Juha\nNiilo"
    rows = read_passengers(write(tmp_path, with_value("name", name)), labelled=True)
    assert rows == [row._replace(name=name) if row.id == ROW else row for row in ROWS]


@pytest.mark.parametrize("line", ['a"b,c', '"a"b,c', '"a" ,b', 'a,"b', '"""'])
def test_misplaced_quotes_are_refused(line):
    with pytest.raises(DataError, match="quote"):
        parse_text(line)


def test_anything_but_a_regular_file_is_refused_without_blocking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "pipe link").symlink_to(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    names = [tmp_path, tmp_path / "none.csv", "/dev/zero", "/dev/null", "-", "", "a\0b", "x" * 5000]
    for name in [
        *names,
        *(tmp_path / end for end in ("pipe", "loop", "pipe link", "socket", "none.csv/x")),
    ]:
        with pytest.raises(InputNotFoundError) as caught:
            read_passengers(name, labelled=True)
        assert caught.value.exit_code == 66
        assert len(str(caught.value).splitlines()) == 1
    server.close()


def test_the_nearest_name_is_offered_for_a_missing_file(tmp_path):
    write(tmp_path, SOUND)
    with pytest.raises(InputNotFoundError, match=r"did you mean .*train\.csv"):
        read_passengers(tmp_path / "trian.csv", labelled=True)
