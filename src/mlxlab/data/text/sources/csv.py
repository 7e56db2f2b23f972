"""Text in a column of CSV files, which may be larger than memory; a field may hold line breaks.

A cursor is (byte, line) of a row's start.
"""

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO

from mlxlab.data.text.document import Document
from mlxlab.data.text.sources.error_budget import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.records import BOM, MAX_RECORD, missing_column
from mlxlab.data.text.sources.sequential import UNIT_BITS, UnitCursor
from mlxlab.errors import DataError

SURROGATE_ESCAPE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, as the CSV parser sees it


class CsvFiles:
    """Sequential units that are CSV files with a header.

    Raises:
        DataError: the column is not in the first file.
    """

    def __init__(self, files: FileSet, column: str, error_budget: ErrorBudget) -> None:
        self.files, self.column, self.error_budget = files, column, error_budget
        self.name, self.fingerprint = files.name, f"{files.fingerprint()}:csv:{column}"
        self.bytes: int | None = int(files.sizes.sum())
        self.check = files.check
        csv.field_size_limit(max(MAX_RECORD, csv.field_size_limit()))
        first = int((files.sizes > 0).argmax())
        with files.open(first) as file:
            self._header(first, Lines(file))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, unit: int, cursor: UnitCursor) -> Iterator[tuple[UnitCursor, Document]]:
        if not self.files.sizes[unit]:
            return
        with self.files.open(unit) as file:
            lines = Lines(file)
            header = self._header(unit, lines)
            if cursor != (0, 0):
                lines.seek(*cursor)
            rows = csv.reader(lines, strict=True)
            while True:
                line = lines.line + 1
                lines.size = 0
                try:
                    text = self._text(next(rows), header)
                except StopIteration:
                    return
                except (csv.Error, ValueError) as error:
                    self.error_budget.skip((unit, line), f"{self.files.path(unit)}:{line}: {error}")
                else:
                    yield (lines.offset, lines.line), Document(unit << UNIT_BITS | line, text)

    def _header(self, unit: int, lines: "Lines") -> list[str]:
        try:
            header = next(csv.reader(lines, strict=True))
        except (csv.Error, ValueError, StopIteration) as error:
            raise DataError(f"{self.files.path(unit)}:1: no header: {error}") from None
        if header.count(self.column) == 1:
            return header
        repeated = f"column {self.column!r} twice in the header"
        message = repeated if self.column in header else missing_column(self.column, header)
        raise DataError(f"{self.files.path(unit)}:1: {message}")

    def _text(self, row: list[str], header: list[str]) -> str:
        if not row:
            return ""
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} fields, expected {len(header)} as in the header")
        text = row[header.index(self.column)]
        if match := SURROGATE_ESCAPE.search(text):
            raise ValueError(f"byte 0x{ord(match.group()) - 0xDC00:02x} is not UTF-8")
        return text


class Lines:
    """The lines of a file for the CSV reader, with their offset, and a limit on the size of a row.

    Raises:
        ValueError: more than `MAX_RECORD` bytes since `size` was last set to 0.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offset, self.line, self.size = 0, 0, 0

    def seek(self, offset: int, line: int) -> None:
        self.file.seek(offset)
        self.offset, self.line = offset, line

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        data = self.file.readline(MAX_RECORD + 1)
        if not data:
            raise StopIteration
        self.offset += len(data)
        self.size += len(data)
        self.line += 1
        if self.size > MAX_RECORD:
            raise ValueError(f"a row of more than {MAX_RECORD} bytes (a quote that is never closed?)")
        return (data.removeprefix(BOM) if self.line == 1 else data).decode("utf-8", "surrogateescape")
