"""Rows of CSV and JSON lines files, plain or compressed."""

from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from itertools import count
from typing import Protocol

from mlxlab.data.input_files import describe_start
from mlxlab.data.labelled.sources.json_reader import JsonColumns, JsonReader
from mlxlab.data.labelled.sources.source import (
    MAX_CHUNK_BYTES,
    UNIT_BITS,
    Chunk,
    check_names,
    text_chunk,
)
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.csv_records import CsvRecords, MalformedRecord, UndecodableRecord
from mlxlab.data.text.sources.file_set import FileSet, suffix_of
from mlxlab.data.text.sources.lines import Lines, codec_of
from mlxlab.data.text.sources.records import require_columns
from mlxlab.errors import DataError

RECODED_BOM = "\u00ef\u00bb\u00bf".encode()  # that of UTF-8, taken for latin-1


class RecordReader(Protocol):
    """The records of a file; it can be continued after a ValueError."""

    @property
    def first_line(self) -> int:
        """Of the record last read."""

    def __next__(self) -> bool:
        """Reads a record; False if it is blank."""

    def take(self) -> Mapping[str, Sequence[str | None]]:
        """The cells of the records read since the last call."""


class LineRows:
    """Rows of files of lines. A place is file << UNIT_BITS | line.

    Args:
        delimiter: of CSV; None finds it (a tab in .tsv).
        encoding: None is UTF-8, or UTF-16 after its byte order mark.
    """

    def __init__(self, files: FileSet, delimiter: str | None, encoding: str | None) -> None:
        self.files, self.name, self.encoding = files, files.name, encoding
        self.header = f"{files.path(0)}:1"
        suffix = suffix_of(files.names[0])
        self.is_json, self.codec = suffix.startswith(".jsonl"), codec_of(suffix)
        self.delimiter = "\t" if suffix.startswith(".tsv") and delimiter is None else delimiter
        self.fingerprint = f"{files.digest()}:{delimiter}:{encoding}"
        self.names_read: dict[str, None] = {}  # keys of JSON lines, as far as `chunks` read them

    def location(self, place: int) -> str:
        return f"{self.files.path(place >> UNIT_BITS)}:{place % (1 << UNIT_BITS)}"

    def columns(self) -> tuple[str, ...]:
        if self.is_json:
            return tuple(self._json_names())
        first = self.files.first_nonempty()
        with self.files.open(first) as file:
            return tuple(self._csv_records(first, self._lines(first, file)).header)

    def chunks(
        self, columns: Sequence[str] | None, errors: ErrorBudget, max_rows: int
    ) -> Iterator[Chunk]:
        header = None if self.is_json else self.columns()
        json_columns = JsonColumns(columns, self.header, self.location)
        self.names_read, numbers = json_columns.names, count(1)
        for index in range(len(self.files)):
            if not self.files.sizes[index]:
                errors.skip(
                    (index, "empty"), f"{self.files.path(index)}:1: the file is empty (0 bytes)"
                )
                continue
            with self.files.open(index) as file:
                lines = self._lines(index, file)
                reader: RecordReader = JsonReader(lines, json_columns, index)
                if header is not None:
                    reader = self._csv_reader(index, lines, header, columns)
                yield from self._read(index, lines, reader, errors, max_rows, numbers)
        if self.is_json:
            json_columns.check()

    def _json_names(self) -> dict[str, None]:
        """The keys of all objects, malformed lines excepted, which are reported when they are read."""
        columns = JsonColumns((), self.header, self.location)
        for index in self.files.sizes.nonzero()[0].tolist():
            with self.files.open(index) as file:
                reader = JsonReader(self._lines(index, file), columns, index)
                while True:
                    reader.rows.clear()
                    try:
                        next(reader)
                    except StopIteration:
                        break
                    except ValueError:
                        continue
                    except OSError:
                        break
        return columns.names

    def _read(
        self,
        index: int,
        lines: Lines,
        reader: RecordReader,
        errors: ErrorBudget,
        max_rows: int,
        next_numbers: Iterator[int],
    ) -> Iterator[Chunk]:
        places: list[int] = []
        numbers: list[int] = []
        start = lines.offset
        while True:
            try:
                if next(reader):
                    places.append(index << UNIT_BITS | reader.first_line)
                    numbers.append(next(next_numbers))
            except StopIteration:
                break
            except ValueError as error:
                next(next_numbers)
                self._skip(index, reader.first_line, lines.line, error, errors)
            except OSError as error:
                if self.codec is None and error.errno is not None:
                    raise
                message = f"{self.files.path(index)}:{lines.line + 1}: after {lines.offset} bytes: {error}"
                raise DataError(message) from None  # how many rows are lost is unknown
            if len(places) >= max_rows or lines.offset - start >= MAX_CHUNK_BYTES:
                if places:
                    yield text_chunk(reader.take(), places, numbers)
                places, numbers, start = [], [], lines.offset
        if places:
            yield text_chunk(reader.take(), places, numbers)

    def _skip(
        self, index: int, first: int, last: int, error: ValueError, errors: ErrorBudget
    ) -> None:
        """Counts a malformed record: each line if its end is uncertain, as that of an open quote."""
        line, column = (
            (error.line, f":{error.column}") if isinstance(error, MalformedRecord) else (first, "")
        )
        is_whole = isinstance(error, MalformedRecord) and error.is_whole
        for number in range(first, first + 1 if is_whole else max(last, first) + 1):
            message = f"{self.files.path(index)}:{line}{column}: {error}"
            errors.skip((index, number), message, is_readable=isinstance(error, UndecodableRecord))

    def _lines(self, index: int, file: BufferedReader) -> Lines:
        lines = Lines(file, self.codec, self.encoding)
        if self.encoding and lines.start.startswith(RECODED_BOM):
            fault = f"a byte order mark of UTF-8, but data.reading.encoding={self.encoding}"
            raise DataError(f"{self.files.path(index)}:1:1: {fault}")
        if lines.is_utf8 and lines.is_recoded:
            fault = f"this is UTF-8, but data.reading.encoding={self.encoding}; data.reading.encoding=utf-8 reads it"
            raise DataError(f"{self.files.path(index)}:1: {fault}")
        if description := describe_start(lines.start):
            kind = "JSON lines" if self.is_json else "a CSV file"
            raise DataError(f"{self.files.path(index)}:1:1: this is {description}; expected {kind}")
        return lines

    def _csv_records(self, index: int, lines: Lines) -> CsvRecords:
        path = self.files.path(index)
        try:
            records = CsvRecords(lines, self.delimiter)
        except MalformedRecord as error:
            raise DataError(f"{path}:{error.line}:{error.column}: {error}") from None
        except ValueError as error:
            raise DataError(f"{path}:1:1: {error}") from None
        except OSError as error:
            if self.codec is None and error.errno is not None:
                raise
            raise DataError(f"{path}:1:1: {error}") from None
        check_names(records.header, f"{path}:1")
        return records

    def _csv_reader(
        self, index: int, lines: Lines, header: tuple[str, ...], columns: Sequence[str] | None
    ) -> "CsvReader":
        records, path = self._csv_records(index, lines), self.files.path(index)
        if set(records.header) != set(header):
            got, first = (
                ", ".join(records.header[:12]),
                self.files.path(self.files.first_nonempty()),
            )
            raise DataError(
                f"{path}:1: columns {got}; expected {', '.join(header[:12])} as in {first}"
            )
        require_columns(f"{path}:1", columns or (), header)
        return CsvReader(records, header if columns is None else columns)


class CsvReader:
    """Collects the records of a CSV file."""

    def __init__(self, records: CsvRecords, columns: Sequence[str]) -> None:
        self.records, self.columns = records, columns
        self.rows: list[list[str]] = []

    @property
    def first_line(self) -> int:
        return self.records.first_line

    def __next__(self) -> bool:
        row = next(self.records)
        if row:
            self.rows.append(row)
        return bool(row)

    def take(self) -> Mapping[str, Sequence[str | None]]:
        cells, header = list(zip(*self.rows, strict=True)), self.records.header
        self.rows = []
        return {name: cells[header.index(name)] for name in self.columns}
