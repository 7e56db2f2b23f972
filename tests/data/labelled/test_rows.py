"""Rows of a source as text: in every format, from the cache, and without those that are malformed."""

import time
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from mlxlab.data.labelled.rows import Rows, location_of, open_rows, plain_columns, text_blocks
from mlxlab.data.sources.block import ErrorBudget
from mlxlab.data.sources.open import open_source
from mlxlab.errors import DataError, UserError
from support.rows import MUTATIONS, mutate, plain_rows, row_reading, write_rows

SUFFIXES = ["csv", "csv.gz", "csv.zst", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "jsonl.zst"]
SUFFIXES += ["parquet"]


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
    return read(path, folder / "cache", on_error, columns, **options)


def read(path, cache, on_error="strict", columns=None, max_left_out=0.01, **options):
    reading = row_reading(**options)
    return Rows([open_rows(str(path), reading, cache, on_error, columns, max_left_out)])


def table_of(rows):
    return rows.table(rows.columns, np.arange(len(rows)))


CSV = 'id,text,label\n1,"hello, ""x""\nthere",pos\n\n2,,neg\n3,plain,pos\n'


@pytest.mark.parametrize(
    ("suffix", "contents", "lines"),
    [
        ("csv", ["a,b\n1,2\nx,y,z\n\n3,4\n", "a,b\n5,6\n7\n8,9\n"], [2, 5, 2, 4]),
        ("jsonl", ['{"a": 1}\n[]\n\n{"a": 3}\n', '{"a": 5}\n{\n{"a": 8}\n'], [1, 4, 1, 3]),
    ],
)
def test_the_number_of_a_row_counts_malformed_ones(tmp_path, suffix, contents, lines):
    for index, content in enumerate(contents):
        write(tmp_path, f"{index}.{suffix}", content)
    errors = ErrorBudget("skip", max_fraction=0.5)
    source = open_source(str(tmp_path), errors=errors)
    blocks = list(text_blocks(source, ["a"], [], errors))
    assert [number for block in blocks for number in block.numbers] == [1, 3, 4, 6]
    assert [cell for block in blocks for cell in block.columns["a"].to_pylist()] == list("1358")
    places = [location_of(source, place) for block in blocks for place in block.places]
    assert [int(place.rpartition(":")[2]) for place in places] == lines


def test_a_cell_without_a_text_makes_its_row_a_malformed_one(tmp_path):
    table = {"a": [b"a", b"\xff", b"c"], "b": ["x", "y", "z"]}
    with pytest.raises(DataError, match=r"a\.parquet:row 2: column 'a': "):
        open_file(tmp_path, "a.parquet", table)
    rows = open_file(tmp_path, "a.parquet", table, on_error="skip", max_left_out=0.5)
    assert table_of(rows) == {"a": ["a", "c"], "b": ["x", "z"]}
    assert rows.location(1) == f"{tmp_path}/a.parquet:row 3"
    assert rows.parts[0].num_malformed == 1


def test_columns_without_a_name_or_with_objects_are_read_only_by_name(tmp_path):
    frame = pd.DataFrame({"a": ["x", "y"], "nested": [{"b": 1}, {"b": 2}], "list": [["u"], []]})
    frame.drop(columns="nested").to_csv(tmp_path / "a.csv")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.set_index(pd.Index(["p", "q"])).to_parquet(tmp_path / "a.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"a.{suffix}"
        assert plain_columns(open_source(str(path))) == ["a", "list"]
        assert read(path, tmp_path / "cache", columns=["a"]).columns == ["a"]
    kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
    pairs = pyarrow.array([[("k", 1)], [("k", 2)]], kind)
    objects = pyarrow.array([[{"b": 1}], []])
    table = pyarrow.table({"a": ["x", "y"], "map": pairs, "objects": objects})
    parquet.write_table(table, tmp_path / "maps.parquet")
    assert plain_columns(open_source(str(tmp_path / "maps.parquet"))) == ["a"]
    rows = read(tmp_path / "a.parquet", tmp_path / "cache", columns=["nested"])
    assert table_of(rows) == {"nested": ['{"b": 1}', '{"b": 2}']}


PARQUET = {  # column -> its values, and their cells
    "int": ([1, None], ["1", None]),
    "float": ([0.1, float("nan")], ["0.1", None]),
    "float32": (pyarrow.array([0.1, 2.5], pyarrow.float32()), ["0.1", "2.5"]),
    "bool": ([True, None], ["true", None]),
    "time": ([datetime(2020, 1, 2, 3, 4, 5, 500), None], ["2020-01-02T03:04:05.000500", None]),
    "date": ([date(2020, 1, 2), None], ["2020-01-02", None]),
    "decimal": ([Decimal("1.50"), None], ["1.50", None]),
    "list": ([["a", None], []], ['["a", null]', "[]"]),
    "text": (["", "\u00e4"], [None, "\u00e4"]),
    "dictionary": (pyarrow.array(["u", None]).dictionary_encode(), ["u", None]),
    "binary": ([b"abc", None], ["abc", None]),
    "null": (pyarrow.nulls(2), [None, None]),
}


def test_rows_of_a_parquet_file(tmp_path):
    values = {name: values for name, (values, _) in PARQUET.items()}
    rows = open_file(tmp_path, "a.parquet", values)
    assert table_of(rows) == {name: cells for name, (_, cells) in PARQUET.items()}
    assert rows.location(1) == f"{tmp_path}/a.parquet:row 2"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_the_same_rows(tmp_path, suffix):
    table = plain_rows(300)
    few = {name: cells[:7] for name, cells in table.items()}
    quoting = True if "tsv" in suffix else None
    path = write_rows(tmp_path / "folder" / f"b.{suffix}", table)
    assert table_of(read(path, tmp_path / "cache", quoting=quoting)) == table
    write_rows(tmp_path / "folder" / f"a.{suffix}", few)
    rows = read(tmp_path / "folder", tmp_path / "cache", quoting=quoting)
    assert table_of(rows) == {name: cells[:7] + cells for name, cells in table.items()}
    first = rows.location(0).rpartition(":")[2]
    assert rows.location(7) == f"{path}:{first}"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "a,b\n,NA\n-,0\n"), ("a.jsonl", '{"a": "", "b": "NA"}\n{"a": "-", "b": "0"}\n')],
)
def test_cells_that_count_as_missing(tmp_path, name, content):
    assert table_of(open_file(tmp_path, name, content)) == {"a": [None, "-"], "b": ["NA", "0"]}
    rows = open_file(tmp_path, name, content, missing=["NA", "-", "0"])
    assert table_of(rows) == {"a": [None, None], "b": [None, None]}


def test_a_changed_file_is_other_rows_and_a_moved_one_is_not(tmp_path):
    first = open_file(tmp_path, "a.csv", CSV)
    changed = open_file(tmp_path, "a.csv", CSV.replace("pos", "bad"))
    assert table_of(changed)["label"] == ["bad", "neg", "bad"]
    assert changed.fingerprint != first.fingerprint
    missing = open_file(tmp_path, "a.csv", CSV, missing=["pos"])
    assert table_of(missing)["label"] == [None, "neg", None]
    moved = open_file(tmp_path, "b.csv", CSV)
    assert moved.fingerprint == first.fingerprint
    assert moved.location(0) == f"{tmp_path}/b.csv:2"


def run_mutations(folder, suffix, count):
    """Rows or a UserError for each mutation; rows from before the mutated byte are the original ones."""
    table = plain_rows(60)
    data = write_rows(folder / f"good.{suffix}", table).read_bytes()
    path = folder / f"a.{suffix}"
    reading = row_reading(quoting=True if "tsv" in suffix else None)
    for seed in range(count):
        mutated, intact = mutate(seed, data, suffix)
        path.write_bytes(mutated)
        start = time.perf_counter()
        message = ""
        try:
            rows = Rows([open_rows(str(path), reading, folder / "cache")])
        except UserError as error:
            message = str(error)
        assert "\n" not in message, seed
        if not message:
            got = table_of(rows)
            rows_read = min(intact, len(rows))
            for name, cells in table.items():
                if name in got:
                    assert got[name][:rows_read] == cells[:rows_read], (seed, name)
        for cached in (folder / "cache").glob("*"):
            cached.unlink()
        assert time.perf_counter() - start < 10, seed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "count", [len(MUTATIONS) * 2, pytest.param(1000, marks=pytest.mark.fault_injection)]
)
def test_a_mutated_file_gives_rows_or_one_line(tmp_path, suffix, count):
    run_mutations(tmp_path, suffix, count)
