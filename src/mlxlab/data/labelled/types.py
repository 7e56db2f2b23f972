"""The types of columns: inferred once from the training rows, stored with the run, applied to every later row.

Cells arrive as text, in which all formats agree. A type reads such a text as a value, so the same rows give the same
values from a CSV file, JSON lines, Parquet, a DataFrame or dicts.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlxlab.data.dataset import Table
from mlxlab.data.sources.messages import require_columns
from mlxlab.errors import DataError

T = TypeVar("T")
Kind = Literal["number", "integer", "boolean", "category", "datetime", "text"]
Value = float | int | bool | str | datetime
Cells: TypeAlias = pa.Array | pa.ChunkedArray
Location = Callable[[int], str]  # where a row stands, for messages

MIN_TEXTS = 10  # rows with different texts that are no categories
MOSTLY = 0.9  # share of rows with different texts that are no categories
MAX_SHOWN = 40  # characters of a cell in a message
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
TIME_OF_DAY = re.compile(r"(\d{1,2})(:\d\d(:\d\d)?)")
DOTTED_DATE = re.compile(r"(\d\d)\.(\d\d)\.(\d{4})")


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
    """

    kind: Kind
    categories: tuple[str, ...] = ()
    numeric: bool = False

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
                return read_datetime(text)
            case "category":
                if self.numeric:
                    return spell_number(text)
        return text


Types = Mapping[str, ColumnType]  # name of a column -> its type


class TypedColumn(NamedTuple):
    """The cells of a column by their distinct values: cell i is `values[codes[i]]`, missing where the code is -1."""

    name: str
    type: ColumnType
    values: Sequence[Any]
    codes: np.ndarray  # (N,) int64
    location: Location = number_of_row

    def cells(self) -> list[Any]:
        """A value for each row, None where it is missing."""
        values = [*self.values, None]
        return [values[code] for code in self.codes]

    def amounts(self, read: Callable[[Any], float] | None = None) -> np.ndarray:
        """(N,) what `read`, or else `amount`, makes of numbers, booleans or times as float64; NaN where one is missing."""
        return np.array([*map(read or amount, self.values), math.nan])[self.codes]

    def where(self, code: int) -> str:
        """Location and name of the first cell that holds value number `code`."""
        return f"{self.location(int(np.argmax(self.codes == code)))}: column {self.name!r}"

    def map(self, read: Callable[[Any], T]) -> list[T]:
        """What `read` makes of each value; where it raises ValueError, DataError with the location."""
        results = []
        for code, value in enumerate(self.values):
            try:
                results.append(read(value))
            except ValueError as error:
                raise DataError(f"{self.where(code)}: {error}") from None
        return results

    def take(self, rows: np.ndarray) -> "TypedColumn":
        """These rows only, with the values that occur in them."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        values = [self.values[code] for code in used.tolist() if code >= 0]

        def location(row: int) -> str:
            return self.location(int(rows[row]))

        return self._replace(
            values=values, codes=codes - (len(used) - len(values)), location=location
        )

    def spelled(self) -> list[str | None]:
        """The cells in the one spelling of each value."""
        return self._replace(values=list(map(spell, self.values))).cells()

    def unseen(self) -> Counter[str]:
        """The categories that no training row has, and in how many rows they are."""
        if not self.type.categories:
            return Counter()
        known = {None, *self.type.categories}
        return Counter(value for value in self.cells() if value not in known)


def read_column(
    name: str, cells: Cells, column_type: ColumnType, location: Location = number_of_row
) -> TypedColumn:
    """The cells of a column; raises DataError with the location of one that is none of its type."""
    texts, codes = distinct_texts(cells, trim=column_type.kind != "text")
    values = TypedColumn(name, column_type, texts, codes, location).map(column_type.read)
    return merge_values(TypedColumn(name, column_type, values, codes, location))


def merge_values(column: TypedColumn) -> TypedColumn:
    """Gives each value one number."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(column.values))}
    new_codes = np.array([*map(numbers.__getitem__, column.values), -1], np.int64)
    return column._replace(values=list(numbers), codes=new_codes[column.codes])


def read_table(
    table: Table, types: Types, location: Location = number_of_row
) -> dict[str, TypedColumn]:
    """The typed columns; raises DataError for a column that is missing, or a cell of another type."""
    require_columns(types, list(table), "the rows")
    return {
        name: read_column(name, pa.array(table[name], pa.string()), column_type, location)
        for name, column_type in types.items()
    }


def distinct_texts(cells: Cells, trim: bool = True) -> tuple[list[str], np.ndarray]:
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


def fit_type(cells: Cells, kind: Kind | None = None) -> ColumnType:
    """The type of a column by its training cells.

    Args:
        kind: what they are; None infers it.
    """
    if kind not in (None, "category"):
        return ColumnType(kind)
    texts, codes = distinct_texts(cells)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    if kind is None:
        are_texts = len(codes) >= MIN_TEXTS and len(texts) >= MOSTLY * counts.sum()
        kind = _infer_kind(texts, counts, "text" if are_texts else "category")
    if kind == "category":
        return _fit_category(texts, counts)
    return ColumnType(kind)


def _infer_kind(texts: Sequence[str], counts: np.ndarray, otherwise: Kind) -> Kind:
    """What texts are. Those of which a few are no numbers are numbers: a cell that is none is refused when it is read."""
    if not texts:
        return "category"
    if all(text.casefold() in BOOLEANS for text in texts):
        return "boolean"
    if all(map(DECIMAL_COMMA.fullmatch, texts)):
        return "number"
    numbers = list(filter(is_number, texts))
    if len(numbers) == len(texts) or _are_misspelt(texts, counts):
        if all(map(is_integer, numbers)):
            return "integer"
        if not all(map(INTEGER.fullmatch, numbers)):  # Such whole numbers are longer than 64 bits.
            return "number"
    if all(map(is_datetime, texts)):
        return "datetime"
    return otherwise


def _are_misspelt(texts: Sequence[str], counts: np.ndarray) -> bool:
    """Whether those that are no numbers are misspelt ones, rather than texts, or codes such as 10115 and A1."""
    others = [number for number, text in enumerate(texts) if not is_number(text)]
    are_codes = all(any(map(str.isdigit, text)) for text in texts)
    if are_codes or len(others) > MAX_FAULTS or any(map(LEADING_ZERO.match, texts)):
        return False
    return bool(2 * counts[others].sum() < counts.sum())


def _fit_category(texts: Sequence[str], counts: np.ndarray) -> ColumnType:
    """A category of these values; numbers are spelled alike where that makes no two of them one."""
    spelled = list(map(spell_number, texts))
    are_numbers = bool(texts) and all(map(is_number, texts))
    numeric = are_numbers and len(set(spelled)) == len(texts)
    names = spelled if numeric else texts
    order = np.argsort(-counts, kind="stable")
    return ColumnType("category", tuple(names[index] for index in order), numeric)


def is_number(text: str) -> bool:
    return _succeeds(read_number, text) and not LEADING_ZERO.match(text)


def is_integer(text: str) -> bool:
    return INTEGER.fullmatch(text) is not None and isinstance(read_integer(text), int)


def is_datetime(text: str) -> bool:
    return len(_as_iso(text)) >= MIN_DATE and _succeeds(read_datetime, text)


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


def read_datetime(text: str) -> datetime:
    """ISO 8601 or `31.01.2024`, in UTC: a time without a zone is one of UTC. `9:30` is of 1970-01-01."""
    try:
        value = datetime.fromisoformat(_as_iso(text))
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        _refuse(text, "a date or time such as 2024-01-31")
    return value


def _as_iso(text: str) -> str:
    if of_day := TIME_OF_DAY.fullmatch(text):
        return f"1970-01-01 {of_day[1]:0>2}{of_day[2]}"
    return DOTTED_DATE.sub(r"\3-\2-\1", text)


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
        case datetime() if value.time() == time.min:
            return value.date().isoformat()
        case datetime():
            return value.isoformat()
        case float():
            return repr(value).removesuffix(".0")
    return str(value)


def amount(value: Value) -> float:
    """A number, a boolean as one, or the seconds of a time."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).timestamp()
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
