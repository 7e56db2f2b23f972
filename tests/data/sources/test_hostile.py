"""Huge, sparse and endless files: refused in one line, within seconds and little memory."""

import json
import lzma
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlxlab.data.sources.block import FIRST, ErrorBudget
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.data.sources.text_files import ignore
from mlxlab.errors import DataError

TESTS = Path(__file__).parents[2]
HUGE = 30 * 2**30
STARTS = {
    "csv": b"text,label\na,b\n",
    "tsv": b"text\tlabel\na\tb\n",
    "jsonl": b'{"text": "a", "label": "b"}\n',
    "json": b'[{"text": "a", "label": "b"}\n',
    "txt": b"",
    "parquet": b"PAR1",
    "arrow": b"ARROW1\0\0",
}


def read(path, errors=None, **reading):
    source = open_source(str(path), Reading(**reading), errors)
    rows = 0
    for unit in range(source.units):
        for block in source.blocks(unit, FIRST, ["text"]):
            rows += len(block.texts("text", ignore))
    return rows


@pytest.mark.parametrize("on_error", ["strict", "skip"])
@pytest.mark.parametrize("ending", STARTS)
def test_a_sparse_file_of_30_gigabytes_is_refused_within_seconds(tmp_path, ending, on_error):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(STARTS[ending])
    with path.open("r+b") as file:
        file.truncate(HUGE)
    began = time.process_time()
    with pytest.raises(DataError, match=f"rows.{ending}") as raised:
        read(path, ErrorBudget(on_error))
    assert time.process_time() - began < 5
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


ENDLESS = {
    "csv": b'text,label\n"' + b"never closed\n" * 2**21,
    "csv in one line": b"text,label\n" + b"a" * 2**25,
    "header": b"text," * 2**23,
    "json": b'[{"text": "' + b"a" * 2**25,
    "jsonl": b'{"text": "' + b"a" * 2**25,
    "jsonl nested": b'{"text": ' + b"[" * 2**22,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_record_is_refused_within_seconds(tmp_path, name):
    path = tmp_path / f"rows.{name.split()[0].replace('header', 'csv')}"
    path.write_bytes(ENDLESS[name])
    began = time.process_time()
    with pytest.raises(DataError, match=path.name) as raised:
        read(path)
    assert time.process_time() - began < 5
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "arrow", "txt.gz", "csv.xz"])
def test_damaged_files_end_in_one_line(tmp_path, ending):
    """Cut off and overwritten files: rows, or a DataError."""
    good = make(tmp_path / f"good.{ending}").read_bytes()
    path = tmp_path / f"bad.{ending}"
    damaged = [good[: len(good) * number // 12] for number in range(1, 12)]
    for number in range(12):
        position = len(good) * number // 12
        damaged.append(good[:position] + b"\xff\0\x80" + good[position + 3 :])
    for data in damaged:
        path.write_bytes(data)
        line = ""
        try:
            read(path)
        except DataError as error:
            line = str(error)
        assert not line or "bad." in line
        assert "\n" not in line


def make(path):
    rows = [{"text": f"text {number} " + "x" * (number % 50), "n": number} for number in range(400)]
    match path.suffixes[-1]:
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=90)
        case ".arrow":
            table = pa.Table.from_pylist(rows)
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table, max_chunksize=70)
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".gz":
            with pa.CompressedOutputStream(str(path), "gzip") as file:
                file.write("".join(row["text"] + "\n" for row in rows).encode())
        case ".xz":
            path.write_bytes(lzma.compress(csv_of(rows)))
        case ".csv":
            path.write_bytes(csv_of(rows))
    return path


def csv_of(rows):
    return ("text,n\n" + "".join(f"{row['text']},{row['n']}\n" for row in rows)).encode()


LIMITED = """
import resource, sys
import numpy, pyarrow, pyarrow.csv, pyarrow.parquet, pyarrow.compute
from mlxlab.data.sources.block import FIRST
from mlxlab.data.sources.open import open_source
from mlxlab.data.sources.text_files import ignore
small, path, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
def read(name):
    source, rows = open_source(name), 0
    for unit in range(source.units):
        for block in source.blocks(unit, FIRST, ["text"]):
            rows += len(block.texts("text", ignore))
    return rows
read(small)
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
print(read(path))
"""


SLOW = pytest.mark.fault_injection


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
@pytest.mark.parametrize(
    "ending",
    [
        "csv",
        "parquet",
        *(pytest.param(each, marks=SLOW) for each in ("jsonl", "txt", "arrow", "csv.gz")),
    ],
)
def test_a_file_of_ten_times_the_memory_limit_streams_within_it(tmp_path, ending):
    limit = 20 * 2**20
    rows, names = 3700, (tmp_path / f"small.{ending}", tmp_path / f"large.{ending}")
    for path, count in zip(names, (10, rows), strict=True):
        write_long_rows(path, count)
    assert names[1].stat().st_size > (5 if ending == "csv.gz" else 10) * limit
    command = [sys.executable, "-c", LIMITED, *map(str, names), str(limit)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 0.8 * rows  # Text files are read in pieces of 64 KiB.


def write_long_rows(path, count):
    """Rows of 57 kB, which differ."""
    generator = np.random.default_rng(0)
    texts = [generator.bytes(28_500).hex() for _ in range(count)]
    csv = ("text,n\n" + "".join(f"{text},1\n" for text in texts)).encode()
    match path.name.partition(".")[2]:
        case "parquet":
            options = {"row_group_size": 500, "write_batch_size": 8, "compression": "none"}
            parquet.write_table(pa.table({"text": texts}), path, **options)
        case "arrow":
            with pa.ipc.new_file(path, pa.schema([("text", pa.string())])) as file:
                file.write_table(pa.table({"text": texts}), max_chunksize=200)
        case "jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        case "txt":
            path.write_text("".join(text + "\n" for text in texts))
        case "csv":
            path.write_bytes(csv)
        case "csv.gz":
            with pa.CompressedOutputStream(str(path), "gzip") as file:
                file.write(csv)
