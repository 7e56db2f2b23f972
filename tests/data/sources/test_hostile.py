"""Huge, sparse and endless files: refused in one line, within seconds and little memory."""

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
from support.text import pack, write_texts

TESTS = Path(__file__).parents[2]
HUGE = 30 * 2**30
STARTS = {
    "csv": b"text,label\na,b\n",
    "tsv": b"text\tlabel\na\tb\n",
    "jsonl": b'{"text": "a", "label": "b"}\n',
    "json": b'[{"text": "a", "label": "b"}\n',
    "txt": b"",
    "parquet": b"PAR1",
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


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "txt.gz", "csv.xz"])
def test_damaged_files_end_in_one_line(tmp_path, ending):
    """Cut off and overwritten files: rows, or a DataError."""
    path = tmp_path / f"bad.{ending}"
    write_texts(path, [f"text {number} " + "x" * (number % 50) for number in range(400)])
    good = path.read_bytes()
    positions = [len(good) * number // 12 for number in range(12)]
    damaged = [good[:position] for position in positions[1:]]
    damaged += [good[:start] + b"\xff\0\x80" + good[start + 3 :] for start in positions]
    for data in damaged:
        path.write_bytes(data)
        line = ""
        try:
            read(path)
        except DataError as error:
            line = str(error)
        assert not line or "bad." in line
        assert "\n" not in line


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
        *(pytest.param(each, marks=SLOW) for each in ("jsonl", "txt", "csv.gz")),
    ],
)
def test_a_file_of_ten_times_the_memory_limit_streams_within_it(tmp_path, ending):
    limit = 20 * 2**20
    small, large = (tmp_path / f"{size}.{ending}" for size in ("small", "large"))
    generator = np.random.default_rng(0)
    texts = [generator.bytes(28_500).hex() for _ in range(3700)]
    write_texts(small, texts[:10])
    if ending == "parquet":
        options = {"row_group_size": 500, "write_batch_size": 8, "compression": "none"}
        parquet.write_table(pa.table({"text": texts}), large, **options)
    elif "csv" in ending:
        large.write_bytes(pack(ending, "\n".join(["text", *texts, ""]).encode()))
    else:
        write_texts(large, texts)
    assert large.stat().st_size > (5 if ending == "csv.gz" else 10) * limit
    command = [sys.executable, "-c", LIMITED, str(small), str(large), str(limit)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 0.8 * len(texts)  # Text files are read in pieces of 64 KiB.
