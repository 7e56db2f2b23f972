"""CSV files, and JSON lines compressed with gzip or zstd: read forwards, one record in memory at a time.

A cursor is (byte, line) of a record's start, decompressed. Seeking decompresses everything before it, at about 300 MB/s
for gzip and 600 MB/s for zstd; where that is too slow, split large files, or use Parquet.
"""

import csv
import io
import os
import re
from collections.abc import Iterator
from functools import partial

from mlxlab.data.input_files import refuse_bomb
from mlxlab.data.text.document import Document, ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet, suffix_of
from mlxlab.data.text.sources.records import BLOCK, BOM, MAX_RECORD, json_text, missing_column
from mlxlab.data.text.sources.windows import UNIT_BITS, UnitCursor
from mlxlab.errors import DataError

CODECS = {".jsonl.gz": "gzip", ".jsonl.zst": "zstd"}
SURROGATE_ESCAPE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as the CSV parser sees it


class LineFiles:
    """Sequential units that are files. Raises DataError if the column is not in the header of the largest CSV file."""

    def __init__(self, files: FileSet, column: str, error_budget: ErrorBudget) -> None:
        self.files, self.column, self.error_budget = files, column, error_budget
        self.codec = CODECS.get(suffix_of(files.names[0]))
        self.name, self.count, self.check = files.name, len(files), files.check
        self.fingerprint = f"{files.fingerprint()}:{'json' if self.codec else 'csv'}:{column}"
        self.bytes = self._estimate_bytes()

    def read(self, unit: int, cursor: UnitCursor) -> Iterator[tuple[UnitCursor, Document]]:
        if not self.files.sizes[unit]:
            return
        with self.files.open(unit) as file:
            lines = Lines(file, self.codec)
            try:
                texts = self._texts(unit, lines)
                if cursor != (0, 0):
                    lines.seek(*cursor)
                while True:
                    line, lines.record_bytes = lines.line + 1, 0
                    try:
                        text = next(texts)
                    except StopIteration:
                        return
                    except (csv.Error, ValueError) as error:
                        self.error_budget.skip((unit, line), f"{self.files.path(unit)}:{line}: {error}")
                    else:
                        yield (lines.offset, lines.line), Document(unit << UNIT_BITS | line, text)
            except OSError as error:
                if self.codec is None:
                    raise
                message = f"{self.files.path(unit)}: after {lines.offset} bytes decompressed: {error}"
                self.error_budget.skip((unit, "unpacking"), message)

    def _texts(self, unit: int, lines: "Lines") -> Iterator[str]:
        """The texts of the records; it can be continued after a `csv.Error` or a ValueError."""
        if self.codec:
            return map(partial(json_text, self.column), lines)
        csv.field_size_limit(max(MAX_RECORD, csv.field_size_limit()))
        rows = csv.reader((map(partial(bytes.decode, errors="surrogateescape"), lines)), strict=True)
        try:
            header = next(rows)
        except (csv.Error, ValueError, StopIteration) as error:
            raise DataError(f"{self.files.path(unit)}:1: no header: {error}") from None
        if header.count(self.column) != 1:
            repeated = f"column {self.column!r} twice in the header"
            message = repeated if self.column in header else missing_column(self.column, header)
            raise DataError(f"{self.files.path(unit)}:1: {message}")
        return map(partial(_csv_text, header.index(self.column), len(header)), rows)

    def _estimate_bytes(self) -> int | None:
        """Total bytes of text, by the compression ratio at the start of the largest file; None if unreadable."""
        largest, total = int(self.files.sizes.argmax()), int(self.files.sizes.sum())
        with self.files.open(largest) as file:
            lines = Lines(file, self.codec)
            if self.codec is None:
                self._texts(largest, lines)  # refuses another header
                return total
            try:
                return int(total * len(lines.stream.read(4 * BLOCK)) / max(lines.stored_bytes, 1))
            except OSError:
                return None


def _csv_text(index: int, num_fields: int, row: list[str]) -> str:
    if not row:
        return ""
    if len(row) != num_fields:
        raise ValueError(f"a row of {len(row)} fields, expected {num_fields} as in the header")
    if match := SURROGATE_ESCAPE.search(row[index]):
        raise ValueError(f"byte 0x{ord(match.group()) - 0xDC00:02x} is not UTF-8")
    return row[index]


class Lines:
    """The decompressed lines of a file, with their offset, and a limit on the size of a record.

    Raises:
        ValueError: more than `MAX_RECORD` bytes since `record_bytes` was last set to 0.
        OSError: the file is corrupt, truncated or a decompression bomb.
    """

    def __init__(self, file: io.BufferedReader, codec: str | None) -> None:
        self.stream, self.file = file, file
        self.offset, self.line, self.record_bytes = 0, 0, 0
        if codec:
            import pyarrow

            self.stream = io.BufferedReader(pyarrow.CompressedInputStream(file.raw, codec), BLOCK)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that were read so far."""
        return os.lseek(self.file.fileno(), 0, os.SEEK_CUR)

    def seek(self, offset: int, line: int) -> None:
        if self.stream.seekable():
            self.offset = self.stream.seek(offset)
        while self.offset < offset and self._advance(self.stream.read(min(offset - self.offset, BLOCK))):
            pass
        self.line, self.record_bytes = line, 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes:
        data = self._advance(self.stream.readline(MAX_RECORD + 1))
        if not data:
            raise StopIteration
        self.line += 1
        if self.record_bytes > MAX_RECORD:
            while data and not data.endswith(b"\n"):
                data = self._advance(self.stream.readline(MAX_RECORD))
            raise ValueError(f"a record of more than {MAX_RECORD} bytes (in CSV perhaps a quote that is never closed)")
        return data.removeprefix(BOM) if self.line == 1 else data

    def _advance(self, data: bytes) -> bytes:
        self.offset += len(data)
        self.record_bytes += len(data)
        refuse_bomb(self.offset, self.stored_bytes)
        return data
