"""Malformed text: strict names file and line, skip counts up to 1 %, and neither needs memory."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from mlxlab.data.sources import text_files
from mlxlab.data.text.documents import Document
from mlxlab.errors import DataError, InputNotFoundError
from support.streams import open_source
from support.text import documents_of, pack, skipped, texts_of, write_texts

TESTS = Path(__file__).parents[2]
GOOD = [f"text {n}" for n in range(400)]
LINES = [json.dumps({"text": text}).encode() for text in GOOD]
LINE_INDEX = 120  # 0-based index of the malformed line

BAD_LINES = {
    "half a line of JSON": (b'{"text": "never en', "not JSON"),
    "a list": (b'["text"]', "is not an object"),
    "a number": (b"17", "17 is not an object"),
    "invalid UTF-8": (b'{"text": "a\xffb"}', "byte 0xff is not UTF-8"),
    "a lone surrogate": (rb'{"text": "a\ud800b"}', r"lone surrogate \(\\ud800\)"),
    "a raw NUL byte": (b'{"text": "a\0b"}', "not JSON"),
    "deep nesting": (b"[" * 200_000, "not JSON"),
    "a huge number": (b'{"text": ' + b"9" * 10_000 + b"}", "not JSON"),
}


def with_bad_line(folder, bad, ending="jsonl"):
    lines = [*LINES[:LINE_INDEX], bad, *LINES[LINE_INDEX:]]
    (folder / f"shard.{ending}").write_bytes(pack(ending, b"\n".join(lines) + b"\n"))
    return str(folder)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("fault", BAD_LINES)
def test_a_malformed_line_ends_the_run_or_is_counted(tmp_path, fault, ending):
    bad, message = BAD_LINES[fault]
    folder = with_bad_line(tmp_path, bad, ending)
    place = rf"shard\.{ending}:{LINE_INDEX + 1}"
    with pytest.raises(DataError, match=f"{place}: .*{message}") as raised:
        documents_of(open_source(folder, window=3))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    source = open_source(folder, on_error="skip", window=100)
    for epoch in (0, 1):
        assert sorted(texts_of(source, epoch=epoch)) == sorted(GOOD)
        assert skipped(source) == 1, "counted once, not once an epoch"


@pytest.mark.parametrize(
    "text", ["a\0b", "\x1b[31m\x7f\x85", "\ufffe \U0010ffff", "=1+1", "a\u2028b"]
)
def test_control_characters_are_text_like_any_other(tmp_path, text):
    for ending in ("jsonl", "csv", "parquet", "txt"):
        path = write_texts(tmp_path / f"a.{ending}", [text])
        assert texts_of(open_source(str(path), document_unit="line")) == [text], ending


def test_documents_of_white_space_are_ignored(tmp_path):
    for ending in ("jsonl", "jsonl.gz", "csv", "parquet", "txt"):
        path = write_texts(tmp_path / f"a.{ending}", ["", " ", "one", "\t\u00a0", "two", ""])
        source = open_source(str(path), document_unit="line")
        assert sorted(texts_of(source)) == ["one", "two"]
        assert skipped(source) == 0
        write_texts(path, [" ", ""])
        with pytest.raises(DataError, match="contains no text"):
            texts_of(open_source(str(path), document_unit="line"))


@pytest.mark.parametrize("ending", ["txt", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet"])
def test_empty_files_and_folders_are_refused_when_opened(tmp_path, ending):
    with pytest.raises(InputNotFoundError, match="no file that ends in"):
        open_source(str(tmp_path))
    (tmp_path / f"b.{ending}").touch()
    with pytest.raises(DataError, match="empty"):
        open_source(str(tmp_path))
    write_texts(tmp_path / f"a.{ending}", GOOD)
    for on_error in ("strict", "skip"):
        with pytest.raises(DataError, match=rf"b.{ending}:1: the file is empty"):
            open_source(str(tmp_path), on_error=on_error)


@pytest.mark.parametrize(("name", "data", "message"), [
    ("a.jsonl", b"\x1f\x8b\x08\x00data", "0x8b is not UTF-8"),
    ("a.csv", "text".encode("utf-16-le"), "UTF-16"),
    ("a.txt", b"\x89PNG\r\n", "0x89 is not UTF-8"),
    ("a.txt", bytes(8), "a.txt:1:1: NUL bytes"),
    ("a.csv", b"PAR1", "no column 'text'"),
    ("a.jsonl.gz", b'{"text": "x"}\n', "gz: after 0 bytes"),
    ("a.jsonl.zst", b'{"text": "x"}\n', "zst: after 0 bytes"),
    ("a.parquet", b'{"text": "x"}\n', "not parquet"),
])  # fmt: skip
def test_a_file_of_another_format_is_reported_by_name(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        texts_of(open_source(str(tmp_path / name)))


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_line_that_is_too_long_ends_the_run(tmp_path, ending):
    long = b'{"text": "' + b"ab" * 2**23 + b'"}'
    folder = with_bad_line(tmp_path, long, ending)
    fault = rf"shard\.{ending}:{LINE_INDEX + 1}: a record of more than 16777216 bytes"
    for on_error in ("strict", "skip"):
        with pytest.raises(DataError, match=fault):
            texts_of(open_source(folder, on_error=on_error))


@pytest.mark.parametrize("ending", ["txt", "jsonl", "jsonl.gz", "csv", "parquet"])
@pytest.mark.parametrize("change", ["grown", "rewritten", "deleted", "replaced by a pipe"])
def test_a_file_that_changes_during_the_run_is_refused(tmp_path, ending, change, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 64)
    path = write_texts(tmp_path / f"a.{ending}", GOOD)
    windows = open_source(str(path), document_unit="line", window=2).windows(0, 0)
    assert isinstance(next(windows)[1][0], Document)
    data = path.read_bytes()
    path.unlink()
    if change == "grown":
        path.write_bytes(data + data)
    elif change == "rewritten":
        path.write_bytes(data[::-1])
        os.utime(path, ns=(1, 1))
    elif change == "replaced by a pipe":
        os.mkfifo(path)
    with pytest.raises(DataError, match=rf"a\.{ending}: changed during the run"):
        list(windows)


def test_an_operating_system_error_is_reported_in_one_line(tmp_path):
    for name in ("a", "b"):
        write_texts(tmp_path / f"{name}.jsonl", GOOD)
    windows = open_source(str(tmp_path), window=3).windows(0, 0)
    next(windows)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(InputNotFoundError, match="cannot be read: Too many open files"):
            list(windows)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    os.symlink(tmp_path / "loop.txt", tmp_path / "loop.txt")
    os.symlink("/dev/zero", tmp_path / "zero.txt")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling.txt")
    for name, message in [
        ("pipe.txt", "pipe.txt: expected a regular file"),
        ("folder.txt", "no file that ends in"),
        ("loop.txt", "symbolic links"),
        ("zero.txt", "zero.txt: expected a regular file"),
        ("dangling.txt", "No such file"),
    ]:
        with pytest.raises(InputNotFoundError, match=message):
            open_source(str(tmp_path / name))
    with pytest.raises(InputNotFoundError):
        open_source(str(tmp_path))  # one of them, not a hang


def test_a_loop_of_folders_is_walked_once(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("text")
    os.symlink(tmp_path, tmp_path / "sub" / "again")
    assert texts_of(open_source(str(tmp_path))) == ["text"]
    assert texts_of(open_source(f"{tmp_path}/**/*.txt")) == ["text"]


def write_bombs(folder):
    """Parquet files of a few kB that decode to hundreds of MB: repeated texts, compressible texts."""
    text = pyarrow.array(["x" * 2**20])
    repeated = pyarrow.DictionaryArray.from_arrays(np.zeros(512, np.int32), text)
    parquet.write_table(pyarrow.table({"text": repeated}), folder / "repeated.parquet")
    plain = {"use_dictionary": False, "compression": "zstd", "write_statistics": False}
    parquet.write_table(
        pyarrow.table({"text": pyarrow.repeat(text[0], 256)}), folder / "packed.parquet", **plain
    )


READ_BOMBS = """
import resource, sys
from support.streams import open_source
texts = lambda name: sum(len(documents) for _, documents in open_source(f"{sys.argv[1]}/{name}.parquet").windows(0, 0))
texts("small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in ("repeated", "packed"):
    print(texts(name))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_parquet_file_that_decodes_to_half_a_gigabyte_is_read_without_holding_it(tmp_path):
    write_texts(tmp_path / "small.parquet", GOOD)
    write_bombs(tmp_path)
    command = [sys.executable, "-c", READ_BOMBS, str(tmp_path)]
    finished = subprocess.run(
        command, cwd=TESTS, capture_output=True, text=True, check=True, timeout=60
    )
    *lines, megabytes = finished.stdout.splitlines()
    assert lines == ["512", "256"]
    assert float(megabytes) < 250, finished.stdout
