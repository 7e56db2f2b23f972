"""Objects of JSON lines, as rows."""

from collections.abc import Callable, Sequence

from mlxlab.data.labelled.sources.cells import cell_text, kind_of
from mlxlab.data.labelled.sources.source import MAX_COLUMNS, UNIT_BITS
from mlxlab.data.text.sources.lines import Lines
from mlxlab.data.text.sources.records import abbreviate, json_object, require_columns, unique_keys
from mlxlab.errors import DataError

MAX_KEYS = 1000  # of all columns of JSON lines: a row holds a cell of each


class JsonColumns:
    """The columns of JSON lines, as far as they were read, over all files."""

    def __init__(
        self, columns: Sequence[str] | None, name: str, location: Callable[[int], str]
    ) -> None:
        self.columns, self.name, self.location = columns, name, location
        self.names: dict[str, None] = {}
        self.kinds: dict[str, tuple[str, int]] = {}  # of the values, and the place of the first one

    def add_names(self, row: dict[str, object]) -> None:
        for name in row:
            if name not in self.names and len(self.names) <= MAX_COLUMNS:
                if not name.strip() or len(name) > 1000 or not name.isprintable():
                    raise ValueError(
                        f"a key {abbreviate(name)}, expected a name of up to 1000 characters"
                    )
                self.names[name] = None
        if len(self.names) > MAX_KEYS and not self.columns:
            raise DataError(f"{self.name}: more than {MAX_KEYS} different keys, expected columns")

    def cell(self, name: str, value: object, place: int) -> str | None:
        """The text of a value; raises ValueError if it is not of the kind of the column."""
        if value is None:
            return None
        try:
            text = cell_text(value)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
        kind, (expected, first) = (
            kind_of(value),
            self.kinds.setdefault(name, (kind_of(value), place)),
        )
        if kind != expected:
            where = self.location(first)
            raise ValueError(
                f"mixed types: column {name!r} holds {abbreviate(value)}, {kind}; {expected} in {where}"
            )
        return text

    def check(self) -> None:
        """Raises DataError if a column never occurred."""
        require_columns(self.name, self.columns or (), {**self.names, **dict.fromkeys(self.kinds)})


class JsonReader:
    """Collects the objects of a file of JSON lines."""

    def __init__(self, lines: Lines, columns: JsonColumns, index: int) -> None:
        self.lines, self.columns, self.index = lines, columns, index
        self.rows: list[dict[str, str | None]] = []
        self.first_line = 1

    def __next__(self) -> bool:
        self.lines.record_bytes, self.first_line = 0, self.lines.line + 1
        row = json_object(next(self.lines), '{"column": value, ...}', unique_keys)
        if row is None:
            return False
        self.columns.add_names(row)
        names = (
            row
            if self.columns.columns is None
            else [name for name in self.columns.columns if name in row]
        )
        place = self.index << UNIT_BITS | self.first_line
        self.rows.append({name: self.columns.cell(name, row[name], place) for name in names})
        return True

    def take(self) -> dict[str, list[str | None]]:
        rows, self.rows = self.rows, []
        names = self.columns.names if self.columns.columns is None else self.columns.columns
        return {name: [row.get(name) for row in rows] for name in names}
