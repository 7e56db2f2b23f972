"""Labelled rows in every format, and damaged versions of their files."""

import csv
import io
import random

import pyarrow

from mlxlab.data.sources.open import Reading
from support.text import make_texts, pack, write_records

INSERTED = [b'"', b'""', b",", b"\t", b";", b"\n", b"\r", b"\0", b"\x1b", b"\xff", b"\xc3"]
INSERTED += [b"\xff\xfe", b"\xef\xbb\xbf", b"\\", b"{", b"}", b"[" * 3000, b"\xed\xa0\x80"]
INSERTED += [b"NaN", b"1e999", b'{"text": {}}', b'\n"', b'"\n', b" ", b"<html>"]
MUTATIONS = ["flip", "insert", "delete", "truncate", "repeat", "swap", "compressed"]


def row_reading(**options):
    """Options for reading with their defaults."""
    return Reading(**options)


def plain_rows(count):
    """Columns with line breaks, quotes, characters of one to four bytes, numbers and missing cells."""
    texts: list[str | None] = [*make_texts(count)]
    texts[3::7] = [None] * len(texts[3::7])
    labels = [f"class {n % 3}" for n in range(count)]
    return {"number": [str(n) for n in range(count)], "text": texts, "label": labels}


def write_rows(path, table):
    """Writes rows in the format that the name says; the column `number` as numbers, where the format has them."""
    path.parent.mkdir(exist_ok=True)
    columns = dict(table)
    if "number" in table:
        columns["number"] = [*map(int, table["number"])]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return write_records(path, rows)


def mutate(seed, data, suffix):
    """Damaged bytes of a file, and how many rows surely precede the damage."""
    rng = random.Random(seed)
    kind, (format_name, _, codec) = MUTATIONS[seed % len(MUTATIONS)], suffix.partition(".")
    if kind == "compressed" or format_name == "parquet":
        return _damage(rng, rng.choice(MUTATIONS[:-2]), data)[0], 0
    if codec:
        name = {"gz": "gzip", "zst": "zstd"}[codec]
        data = pyarrow.CompressedInputStream(pyarrow.BufferReader(data), name).read()
    mutated, start = _damage(rng, kind, data)
    return pack(suffix, mutated), _count_rows(data[:start], format_name)


def _damage(rng, kind, data):
    """The damaged bytes, and the offset of the first one."""
    start, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 30])
    match kind:
        case "flip":
            flipped = bytes([data[start] ^ 1 << rng.randrange(8)])
            return data[:start] + flipped + data[start + 1 :], start
        case "insert":
            return data[:start] + rng.choice(INSERTED) + data[start:], start
        case "delete":
            return data[:start] + data[start + length :], start
        case "truncate":
            return data[:start], start
        case "repeat":
            return data[: start + length] + data[start:], start
    lines = data.splitlines(keepends=True)
    first, second = sorted(rng.sample(range(len(lines)), 2))
    start = sum(map(len, lines[:first]))
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines), start


def _count_rows(data, format_name):
    """Whole rows before the last one, which may be cut off."""
    if format_name == "jsonl":
        return max(data.count(b"\n") - 1, 0)
    text = io.StringIO(data.decode(errors="replace"), newline="")
    return max(len(list(csv.reader(text, delimiter="\t" if format_name == "tsv" else ","))) - 2, 0)
