"""Small texts in every format, and sources read to their end."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pyarrow
from pyarrow import parquet

FORMATS = ["jsonl", "jsonl.gz", "jsonl.zst", "jsonl.xz", "json", "csv", "csv.gz", "csv.bz2", "tsv"]
FORMATS += ["parquet", "txt", "txt.gz"]


def make_texts(count=300):
    """Texts of several lengths, with line breaks, quotes and characters of one to four bytes."""
    return [f'text {n}, "quoted"\n\n{"aé€😀"[n % 4] * (n % 97)} end' for n in range(count)]


def write_texts(path, texts, column="text"):
    """Writes documents in the format that the name says; .txt holds them as lines, without their line breaks."""
    if ".txt" in path.name:
        path.write_bytes(pack(path.name, "".join(f"{text}\n" for text in texts).encode()))
        return path
    return write_records(path, [{"number": n, column: text} for n, text in enumerate(texts)])


def write_records(path, rows):
    """Writes mappings of the same keys in the format that the name says."""
    name = str(path)
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=29)
    elif ".csv" in name or ".tsv" in name:
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, rows[0], delimiter="\t" if ".tsv" in name else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(pack(name, file.getvalue().encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(pack(name, lines.encode()))
    return path


def pack(name, data):
    """Bytes as the ending of a name wants them."""
    if name.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    if name.endswith(".bz2"):
        return bz2.compress(data)
    if name.endswith(".xz"):
        return lzma.compress(data)
    if name.endswith(".zst"):
        return pyarrow.compress(data, "zstd", asbytes=True)
    return data


def documents_of(source, seed=0, epoch=0, position=None):
    return [
        document for _, documents in source.windows(seed, epoch, position) for document in documents
    ]


def skipped(source):
    """The number of malformed records that were skipped so far."""
    return source.skipped_records


def texts_of(source, seed=0, epoch=0):
    return [document.text for document in documents_of(source, seed, epoch)]
