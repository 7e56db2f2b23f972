"""CSV files, and JSON lines that are compressed: read forwards, one record in memory at a time.

A cursor is (byte, line) of a record's start, decompressed. Seeking decompresses everything before it, at about 300 MB/s
for gzip and 600 MB/s for zstd; where that is too slow, split large files, or use Parquet.
"""

from collections.abc import Callable, Iterator
from functools import partial

from mlxlab.data.text.document import Document, ErrorBudget
from mlxlab.data.text.sources.csv_records import CsvRecords, MalformedRecord
from mlxlab.data.text.sources.file_set import FileSet, suffix_of
from mlxlab.data.text.sources.lines import Lines, codec_of
from mlxlab.data.text.sources.records import BLOCK, json_text, missing_column
from mlxlab.data.text.sources.windows import UNIT_BITS, UnitCursor
from mlxlab.errors import DataError


class LineFiles:
    """Sequential units that are files. Raises DataError if the column is not in the header of the largest CSV file.

    Args:
        parse_json: makes a text of a line of JSON; None takes that of the column.
    """

    def __init__(
        self,
        files: FileSet,
        column: str,
        error_budget: ErrorBudget,
        parse_json: Callable[[bytes], str] | None = None,
    ) -> None:
        self.files, self.column, self.error_budget = files, column, error_budget
        self.parse_json = parse_json or partial(json_text, column)
        suffix = suffix_of(files.names[0])
        self.codec, self.is_json = codec_of(suffix), suffix.startswith(".jsonl")
        self.delimiter = "\t" if suffix.startswith(".tsv") else ","
        self.name, self.count, self.check = files.name, len(files), files.check
        self.fingerprint = f"{files.fingerprint()}:{'json' if self.is_json else 'csv'}:{column}"
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
                    except ValueError as error:
                        self.error_budget.skip(
                            (unit, line), f"{self.files.path(unit)}:{line}: {error}"
                        )
                    else:
                        yield (lines.offset, lines.line), Document(unit << UNIT_BITS | line, text)
            except OSError as error:
                if self.codec is None:
                    raise
                message = (
                    f"{self.files.path(unit)}: after {lines.offset} bytes decompressed: {error}"
                )
                self.error_budget.skip((unit, "unpacking"), message)

    def _texts(self, unit: int, lines: Lines) -> Iterator[str]:
        """The texts of the records; it can be continued after a ValueError."""
        if self.is_json:
            return map(self.parse_json, lines)
        try:
            records = CsvRecords(lines, self.delimiter, control=True)
        except MalformedRecord as error:
            raise DataError(
                f"{self.files.path(unit)}:{error.line}:{error.column}: {error}"
            ) from None
        if self.column not in records.header:
            raise DataError(
                f"{self.files.path(unit)}:1: {missing_column(self.column, records.header)}"
            )
        index = records.header.index(self.column)
        return map(
            partial(_cell, index), records
        )  # can continue after an error, unlike a generator

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


def _cell(index: int, record: list[str]) -> str:
    return record[index] if record else ""
