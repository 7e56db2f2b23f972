"""One stack of rows: every format gives the same cells, from any cursor on."""

import json

import pandas as pd
import pytest

from mlxlab.data.sources import text_files
from mlxlab.data.sources.block import FIRST, ErrorBudget
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.data.sources.text_files import ignore
from mlxlab.errors import DataError
from support.rows import write_rows

TEXTS = ["plain", "a, comma", 'a "quote"', "two\nlines", "crlf\r\ninside", "\u2028 separator"]
TEXTS += ["bell\x07", "", "naïve", "x" * 300]
ROWS = [
    {"id": str(number), "text": TEXTS[number % len(TEXTS)], "label": "ab"[number % 2]}
    for number in range(200)
]


def read(source, columns=("id", "text", "label")):
    """(rows, (unit, number) of each)."""
    rows, places = [], []
    for unit in range(source.units):
        for block in source.blocks(unit, FIRST, columns):
            cells = [block.texts(name, ignore).to_pylist() for name in columns]
            rows += list(zip(*cells, strict=True))
            places += [(unit, int(number)) for number in block.numbers]
    return rows, places


@pytest.fixture(params=[64, 1000, 2**20])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(text_files, "MIN_RANGE", request.param)


def make(tmp_path, kind):
    path = tmp_path / f"rows{kind}"
    frame = pd.DataFrame(ROWS)
    match kind:
        case ".json":
            path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), newline="")
        case ".parquet":
            frame.to_parquet(path, row_group_size=37)
        case "utf16.csv" | "bom.csv":
            encoding = "utf-16" if kind == "utf16.csv" else "utf-8-sig"
            text = write_rows(path, frame.to_dict("list")).read_bytes().decode()
            path.write_bytes(text.encode(encoding))
        case "frame":
            return open_source(frame)
        case "dicts":
            return open_source(ROWS)
        case "datasets" | "stream":
            rows = pytest.importorskip("datasets").Dataset.from_list(ROWS)
            return open_source(rows if kind == "datasets" else rows.to_iterable_dataset(3))
        case _:
            write_rows(path, frame.to_dict("list"))
    return open_source(str(path), Reading(quoting=True if kind == ".tsv" else None))


KINDS = [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz", ".csv.bz2"]
KINDS += [".jsonl.xz", ".jsonl.zst", "utf16.csv", "bom.csv", "frame", "dicts", "datasets", "stream"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_cells(tmp_path, kind, block_bytes):
    rows, _ = read(make(tmp_path, kind))
    assert rows == [tuple(row.values()) for row in ROWS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_position_gives_the_rest_of_the_rows(tmp_path, kind, block_bytes):
    def ids(blocks):
        return [cell for block in blocks for cell in block.texts("id", ignore).to_pylist()]

    source = make(tmp_path, kind)
    for unit in range(source.units):
        blocks = list(source.blocks(unit, FIRST, ["id"]))
        for index, block in enumerate(blocks):
            start = tuple(json.loads(json.dumps(block.start)))
            assert ids(source.blocks(unit, start, ["id"])) == ids(blocks[index:])


@pytest.mark.parametrize("kind", [".csv", ".jsonl", "bom.csv", ".csv.gz"])
def test_numbers_are_lines(tmp_path, kind, block_bytes):
    source = make(tmp_path, kind)
    rows, places = read(source)
    lines = {}
    line = 1 if "jsonl" in kind else 2
    for row in ROWS:
        lines[row["id"]] = line
        line += 1 if "jsonl" in kind else 1 + row["text"].count("\n")
    for row, (unit, number) in zip(rows, places, strict=True):
        assert source.location(unit, number).endswith(f":{lines[row[0]]}")


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (b"1,two\n", "a row of 2 fields, expected 3"),
        (b'1,"a" b,c\n', "expected after"),
        (b"1,a\xff,c\n", "0xff is not UTF-8"),
        (b'1,"never closed,c\n', "never closed"),
    ],
)
def test_a_malformed_row_is_named_by_its_line_and_skipped(tmp_path, record, fault, block_bytes):
    good = [b"%d,text,a\n" % number for number in range(200)]
    path = tmp_path / "rows.csv"
    path.write_bytes(b"".join([b"id,text,label\n", *good[:150], record, *good[150:]]))
    with pytest.raises(DataError, match=f"rows.csv:152: .*{fault}"):
        read(open_source(str(path)))
    errors = ErrorBudget("skip")
    rows, places = read(open_source(str(path), errors=errors))
    assert (len(rows), errors.skipped, places[150][1]) == (200, 1, 153)
    with pytest.raises(DataError, match="1 of 201 rows are malformed"):
        ErrorBudget("skip", max_fraction=0.001, valid=200, skipped=1, first="x").check()


def test_quotes_of_a_tsv_may_be_text(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"open\ta\nb\tb\nclosed"\tc\n5" pipe\td\n')
    rows, _ = read(open_source(str(path), Reading(quoting=False)), ("text", "label"))
    assert rows == [('"open', "a"), ("b", "b"), ('closed"', "c"), ('5" pipe', "d")]
    with pytest.raises(DataError, match=r"rows.tsv:2: .*data.reading.quoting=false"):
        read(open_source(str(path)), ("text", "label"))


def test_a_stray_quote_is_text_and_does_not_swallow_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 500)
    monkeypatch.setattr(text_files, "MAX_RECORD", 2000)
    records = [f'{number},"quoted, {number}",a\n' for number in range(500)]
    records[20] = '20,a 5" pipe,b\n'
    path = tmp_path / "rows.csv"
    path.write_text("".join(["id,text,label\n", *records]))
    rows, places = read(open_source(str(path)))
    assert rows[20] == ("20", 'a 5" pipe', "b")
    assert rows[499] == ("499", "quoted, 499", "a")
    assert [number for _, number in places] == list(range(2, 502))
