"""The types of columns: inferred once from the training rows, stored with the run, applied to every later row.

Cells arrive as text, in which all formats agree. A type reads such a text as a value, so the same rows give the same
values from a CSV file, JSON lines, Parquet, a DataFrame or dicts.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlxlab.data.dataset import Table
from mlxlab.errors import ConfigError, DataError
from mlxlab.nearest import did_you_mean, nearest

Kind = Literal["number", "integer", "boolean", "category", "datetime", "text"]
Value = float | int | bool | str | datetime
Location = Callable[[int], str]  # of a row, for messages

MIN_TEXTS = 10  # rows with different texts that are no categories
MOSTLY = 0.9  # of the rows with different texts: they are no categories
MAX_SHOWN = 40  # characters of a cell in a message
MAX_EXAMPLES = 3  # cells in advice
MAX_FAULTS = 10  # different cells that are no numbers; more are meant as they are
MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1  # unsigned
INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.0*)?")
LEADING_ZERO = re.compile(r"[+-]?0[0-9]")
DECIMAL_COMMA = re.compile(
    r"[-+]?(\d+|\d{1,3}(\.\d{3})+),\d+|[-+]?\d{1,3}(,\d{3})+(\.\d+)?"  # 2.710,5 or 2,710.5
)
BOOLEANS = {"true": True, "false": False}
MIN_DATE = len("2024-01-02")


def number_of_row(row: int) -> str:
    """The location of a row that stands in no file."""
    return f"row {row + 1}"


@dataclass(frozen=True)
class ColumnType:
    """What the cells of a column are.

    Args:
        kind: how a cell is read.
        categories: of a category, those of the training rows, most frequent first.
        numeric: whether all categories are numbers; then 1, 1.0 and `1` are the same one.
        zoned: whether times have a zone.
    """

    kind: Kind
    categories: tuple[str, ...] = ()
    numeric: bool = False
    zoned: bool = False

    def read(self, text: str) -> Value:
        """The value of a cell that is not blank; raises ValueError if it is none of this type."""
        match self.kind:
            case "integer":
                return read_integer(text)
            case "number":
                return read_number(text)
            case "boolean":
                return read_boolean(text)
            case "datetime":
                return read_datetime(text, self.zoned)
            case "category":
                if self.numeric:
                    return spell_number(text)
        return text


class TypedColumn(NamedTuple):
    """The cells of a column by their distinct values: cell i is `values[codes[i]]`, missing where the code is -1."""

    name: str
    type: ColumnType
    values: list[Value]
    codes: np.ndarray  # (N,) int64

    def cells(self) -> list[Value | None]:
        """A value for each row, None where it is missing."""
        values = [*self.values, None]
        return [values[code] for code in self.codes]

    def take(self, rows: np.ndarray) -> "TypedColumn":
        """These rows only, with the values that occur in them."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        is_present = used >= 0
        values = [self.values[code] for code in used[is_present].tolist()]
        num_missing = len(used) - len(values)
        return TypedColumn(self.name, self.type, values, codes.reshape(-1) - num_missing)

    def counts(self) -> np.ndarray:
        """(U,) rows of each value."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))

    def unseen(self) -> dict[str, int]:
        """The categories that no training row has, and in how many rows they are."""
        if self.type.kind != "category":
            return {}
        known = set(self.type.categories)
        unseen: dict[str, int] = {}
        for value, count in zip(self.values, self.counts().tolist(), strict=True):
            if value not in known and count:
                unseen[str(value)] = count
        return unseen


def read_column(
    name: str,
    cells: pa.Array | pa.ChunkedArray,
    column_type: ColumnType,
    location: Location = number_of_row,
) -> TypedColumn:
    """The cells of a column; raises DataError with the location of one that is none of its type."""
    texts, codes = distinct_texts(cells, trim=column_type.kind != "text")
    values: dict[Value, int] = {}
    code_of = np.full(len(texts) + 1, -1, np.int64)  # The last one is that of a missing cell.
    for number, text in enumerate(texts):
        try:
            value = column_type.read(text)
        except ValueError as error:
            row = int(np.argmax(codes == number))
            raise DataError(f"{location(row)}: column {name!r}: {error}") from None
        code_of[number] = values.setdefault(value, len(values))
    return TypedColumn(name, column_type, list(values), code_of[codes])


def distinct_texts(
    cells: pa.Array | pa.ChunkedArray, trim: bool = True
) -> tuple[list[str], np.ndarray]:
    """The distinct cells, and the number of each row's; -1 for a missing one, or one of white space alone.

    Args:
        trim: without white space around them.
    """
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.combine_chunks()
    trimmed = pc.utf8_trim_whitespace(cells)
    present = pc.if_else(pc.equal(trimmed, ""), None, trimmed if trim else cells)
    encoded = present.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1)
    return encoded.dictionary.to_pylist(), codes.to_numpy(zero_copy_only=False).astype(np.int64)


def infer_type(
    name: str, cells: pa.Array | pa.ChunkedArray, location: Location = number_of_row
) -> ColumnType:
    """The type of a column, by its training rows. Raises DataError if most of its cells are numbers, but not all."""
    texts, codes = distinct_texts(cells)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    if not texts:
        return ColumnType("category")
    if all(text.casefold() in BOOLEANS for text in texts):
        return ColumnType("boolean")
    if all(map(is_integer, texts)):
        return ColumnType("integer")

    numeric = np.array([is_number(text) for text in texts])
    are_codes = all(map(INTEGER.fullmatch, texts))  # Such whole numbers are longer than 64 bits.
    if numeric.all() and not are_codes:
        return ColumnType("number")
    fault = "" if are_codes else _describe_fault(texts, counts, numeric, name)
    if fault:
        first = int(np.argmin(numeric))
        row = int(np.argmax(codes == first))
        raise DataError(f"{location(row)}: column {name!r}: {fault}")
    if all(map(is_datetime, texts)):
        zoned = {read_datetime(text, None).tzinfo is not None for text in texts}
        if len(zoned) == 1:
            return ColumnType("datetime", zoned=zoned.pop())
    if len(codes) >= MIN_TEXTS and len(texts) >= MOSTLY * counts.sum():
        return ColumnType("text")
    return fit_category(texts, counts)


def _describe_fault(
    texts: Sequence[str], counts: np.ndarray, numeric: np.ndarray, name: str
) -> str:
    """What is wrong with numbers some of which are misspelt; "" for texts, and for codes such as 10115 and A1."""
    if all(map(DECIMAL_COMMA.fullmatch, texts)):
        return f"numbers with a comma, such as {shorten(texts[0])}; expected a decimal point"
    if any(map(LEADING_ZERO.match, texts)):
        return ""
    are_codes = all(any(map(str.isdigit, text)) for text in texts)
    others = [text for text in texts if not is_number(text)]
    are_few = len(others) <= MAX_FAULTS and 2 * counts[numeric].sum() > counts.sum()
    if are_codes or not are_few:
        return ""
    share = f"{counts[~numeric].sum()} of {counts.sum()} cells are no finite numbers"
    missing = f"data.reading.missing=[{', '.join(others[:MAX_EXAMPLES])}] if they are missing"
    return f"{share}, such as {shorten(others[0])}; {missing}, or data.types={{{name}: category}}"


def fit_category(texts: Sequence[str], counts: np.ndarray) -> ColumnType:
    """A category of these values; numbers are spelled alike where that makes no two of them one."""
    spelled = list(map(spell_number, texts))
    are_numbers = bool(texts) and all(map(is_number, texts))
    numeric = are_numbers and len(set(spelled)) == len(texts)
    names = spelled if numeric else texts
    order = np.argsort(-counts, kind="stable")
    categories = tuple(names[index] for index in order)
    return ColumnType("category", categories, numeric)


def fit_types(
    columns: Mapping[str, pa.Array | pa.ChunkedArray],
    chosen: Mapping[str, Kind],
    location: Location = number_of_row,
) -> dict[str, ColumnType]:
    """The types of all columns.

    Args:
        columns: the training cells of each.
        chosen: `data.types`; the other types are inferred.
    """
    for name in chosen:
        if name not in columns:
            hint = did_you_mean(nearest(name, columns))
            raise ConfigError(f"data.types.{name}: no column that the model reads{hint}")
    types: dict[str, ColumnType] = {}
    for name, cells in columns.items():
        if name in chosen:
            types[name] = fit_kind(chosen[name], cells)
            read_column(name, cells, types[name], location)  # This names a cell of another type.
        else:
            types[name] = infer_type(name, cells, location)
    return types


def fit_kind(kind: Kind, cells: pa.Array | pa.ChunkedArray) -> ColumnType:
    """The type of this kind with what the training cells decide: the categories, and whether times have a zone."""
    if kind == "category":
        texts, codes = distinct_texts(cells)
        return fit_category(texts, np.bincount(codes[codes >= 0], minlength=len(texts)))
    if kind == "datetime":
        texts, _ = distinct_texts(cells)
        first = next(filter(is_datetime, texts), None)
        zoned = first is not None and read_datetime(first, None).tzinfo is not None
        return ColumnType("datetime", zoned=zoned)
    return ColumnType(kind)


def is_number(text: str) -> bool:
    return _succeeds(read_number, text) and not LEADING_ZERO.match(text)


def is_integer(text: str) -> bool:
    return INTEGER.fullmatch(text) is not None and isinstance(read_integer(text), int)


def is_datetime(text: str) -> bool:
    def read(text: str) -> datetime:
        return read_datetime(text, None)

    return len(text) >= MIN_DATE and _succeeds(read, text)


def read_boolean(text: str) -> bool:
    word = text.casefold()
    if word not in BOOLEANS:
        _refuse(text, "true or false")
    return BOOLEANS[word]


def read_number(text: str) -> float:
    """A finite number; `1_000`, which Python reads as one, is none in a table."""
    try:
        number = float(text.replace("_", "x"))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        _refuse(text, "a finite number")
    return number + 0.0  # The sum of -0 and 0 is 0.


def read_integer(text: str) -> int | float:
    """A whole number of 64 bits, exactly; `4.0` is one, as pandas writes integers with gaps. Others are floats."""
    if INTEGER.fullmatch(text) and len(text) <= MAX_SHOWN:
        number = int(text.partition(".")[0])
        if MIN_INTEGER <= number <= MAX_INTEGER:
            return number
    value = read_number(text)  # This may be a number such as 1e3.
    if value.is_integer() and MIN_INTEGER <= value <= MAX_INTEGER:
        return int(value)
    return value


def read_datetime(text: str, zoned: bool | None) -> datetime:
    """ISO 8601, in UTC if it has a zone; raises ValueError unless it has one where `zoned`, and none where not."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        _refuse(text, "a date or time such as 2024-01-31")
    has_zone = value.tzinfo is not None
    if zoned and not has_zone:
        _refuse(text, "a time with a zone")
    if zoned is False and has_zone:
        _refuse(text, "a time without a zone")
    if not has_zone:
        return value
    try:
        return value.astimezone(UTC)
    except OverflowError:
        _refuse(text, "a time of the years 1 to 9999")


def spell_number(text: str) -> str:
    """The one spelling of a number, `1` for `1.0`; a text that is none stays."""
    if is_integer(text):
        return str(read_integer(text))
    if is_number(text):
        return repr(read_number(text))
    return text


def spell(value: Value) -> str:
    """The text of a value, from which its type reads it again."""
    match value:
        case bool():
            return str(value).casefold()
        case datetime() if value.time() == time.min and value.tzinfo is None:
            return value.date().isoformat()
        case datetime():
            return value.isoformat()
        case float():
            return repr(value).removesuffix(".0")
    return str(value)


def spell_table(table: Table, types: Mapping[str, ColumnType]) -> dict[str, list[str | None]]:
    """The cells of these columns in the one spelling of each value; raises DataError for a cell of another type."""
    spelled: dict[str, list[str | None]] = {}
    for name, column_type in types.items():
        cells = read_column(name, pa.array(table[name], pa.string()), column_type).cells()
        spelled[name] = [None if value is None else spell(value) for value in cells]
    return spelled


def amount(value: Value) -> float:
    """A number, a boolean or a time as a number; a time without a zone is one of UTC."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    return float(value)


def shorten(text: str) -> str:
    """A cell in a message: quoted, at most `MAX_SHOWN` characters of it."""
    if len(text) > MAX_SHOWN:
        return f"{text[:MAX_SHOWN]!r}..."
    return repr(text)


def _refuse(text: str, expected: str) -> NoReturn:
    raise ValueError(f"expected {expected}, got {shorten(text)}")


def _succeeds(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True
