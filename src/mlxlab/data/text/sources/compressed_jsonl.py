"""JSON lines packed by gzip or zstd: unpacked as they are read, never more than a line in memory.

A mark is (bytes unpacked, line). Going there unpacks what lies before without looking at it, some 300 MB of text a
second for gzip, 600 for zstd; where that is too slow, cut large files into shards, or use parquet.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

from mlxlab.data.text.document import Document
from mlxlab.data.text.sources.error_budget import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.record_boundaries import MAX_RECORD
from mlxlab.data.text.sources.record_parsers import BOM, RecordParser
from mlxlab.data.text.sources.sequential import Mark

CODECS = {".gz": "gzip", ".zst": "zstd"}
BLOCK = 2**18  # bytes unpacked at a time
FREE, RATIO = 2**26, 250  # more than `FREE` bytes out of `RATIO` times fewer are a bomb, not text
LINES = 40  # bits of an id that count lines


class CompressedJsonl:
    """Units of which each is a packed file."""

    def __init__(self, shards: FileSet, read: RecordParser, tolerance: ErrorBudget, settings: str) -> None:
        self.shards, self.to_text, self.tolerance = shards, read, tolerance
        self.name, self.fingerprint = shards.name, f"{shards.fingerprint()}:{settings}"
        self.bytes = self._estimate()

    def __len__(self) -> int:
        return len(self.shards)

    def shard(self, unit: int) -> int:
        return unit

    def read(self, unit: int, mark: Mark) -> Iterator[tuple[Mark, Document]]:
        offset, line = mark
        with self.shards.open(unit) as file:
            for data in lines(self._unpack(unit, file, offset)):
                line += 1
                size, text = self._text(unit, line, data)
                offset += size
                if text and not text.isspace():
                    yield (offset, line), Document(unit << LINES | line, text)

    def _text(self, unit: int, line: int, data: bytes | int) -> tuple[int, str]:
        """Size and text of a line; `data` is only its size if it is too long, "" stands for what was passed over."""
        try:
            if isinstance(data, int):
                raise ValueError(f"a line of {data} bytes, expected <= {MAX_RECORD}")
            return len(data), self.to_text(data.removeprefix(BOM) if line == 1 else data)
        except ValueError as error:
            self.tolerance.fault((unit, line), partial("{}:{}: {}".format, self.shards.path(unit), line, error))
            return data if isinstance(data, int) else len(data), ""

    def _unpack(self, unit: int, file: BinaryIO, offset: int) -> Iterator[bytes]:
        """The unpacked bytes from `offset` on. What cannot be unpacked ends them, and is a fault."""
        out = 0
        try:
            with decompress(file, self.shards.names[unit]) as stream:
                while block := stream.read(BLOCK):
                    out, packed = out + len(block), os.lseek(file.fileno(), 0, os.SEEK_CUR)
                    if out > FREE and out > RATIO * packed:
                        raise OSError(f"{out} bytes out of {packed}: a compressed bomb")
                    yield block[max(offset - out + len(block), 0) :]
        except OSError as error:
            said = partial("{}: after {} bytes unpacked: {}".format, self.shards.path(unit), out, error)
            self.tolerance.fault((unit, "unpacking"), said)

    def _estimate(self) -> int | None:
        """Bytes of text in all, by how well the start of the first file is packed."""
        first = int(self.shards.sizes.argmax())
        with self.shards.open(first) as file:
            try:
                with decompress(file, self.shards.names[first]) as stream:
                    got = len(stream.read(4 * BLOCK))
            except OSError:
                return None
            return int(self.shards.sizes.sum() * got / max(os.lseek(file.fileno(), 0, os.SEEK_CUR), 1))


def decompress(file: BinaryIO, name: str) -> Any:
    """A stream that raises OSError where the file is corrupt or cut short; `file` stays open."""
    import pyarrow

    codec = next(word for ending, word in CODECS.items() if name.lower().endswith(ending))
    return pyarrow.CompressedInputStream(os.fdopen(os.dup(file.fileno()), "rb", buffering=0), codec)


def lines(blocks: Iterator[bytes]) -> Iterator[bytes | int]:
    """Lines with their ends; of one that is longer than `MAX_RECORD` only the size."""
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        for more in others:
            size += len(first) + 1
            yield b"".join([*parts, first, b"\n"]) if size <= MAX_RECORD else size
            parts, size, first = [], 0, more
        size += len(first)
        parts = [*parts, first] if size <= MAX_RECORD else []
    if size:
        yield b"".join(parts) if size <= MAX_RECORD else size
