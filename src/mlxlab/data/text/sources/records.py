"""Records of text: finds them from any offset of a file without reading what precedes it, and parses them.

A record belongs to the byte range in which it begins (a fixed-size piece: in which its nominal start lies), so ranges
read in any order yield each record once.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import BinaryIO, Literal, NamedTuple

from mlxlab.errors import DataError

DocumentUnit = Literal["file", "paragraph", "line"]
MAX_RECORD = 2**24  # bytes of a line, a paragraph, a text; longer ones are malformed
BLOCK = 2**18
MAX_SHOWN = 40  # characters of a malformed record in a message
BOM = b"\xef\xbb\xbf"
PairsHook = Callable[[list[tuple[str, object]]], dict[str, object]]


class ByteRange(NamedTuple):
    """Bytes `begin` up to `end` of a file of `size` bytes, of which `low` up to `high` are used at all."""

    file: BinaryIO
    begin: int
    end: int
    size: int
    low: int
    high: int


class RecordFormat(NamedTuple):
    """Finds and parses the records of uncompressed files."""

    # Yields start and bytes of the records that begin in a range; None for one longer than MAX_RECORD.
    split: Callable[[ByteRange], Iterator[tuple[int, bytes | None]]]
    parse: Callable[[bytes], str]  # raises ValueError for a malformed record
    settings: str  # determine both, for fingerprints


def split_after(
    pattern: re.Pattern[bytes], ahead: int, span: ByteRange
) -> Iterator[tuple[int, bytes | None]]:
    """Records that begin after each match of `pattern`: one byte, perhaps with a lookahead of up to `ahead` bytes."""
    position = max(span.begin - 1, 0)
    span.file.seek(position)
    data = span.file.read(min(span.end + ahead, span.size) - position)
    starts = [0] if span.begin == 0 else []
    starts += [match.end() for match in pattern.finditer(data) if match.end() < span.end - position]
    for start, stop in pairwise(starts):
        yield position + start, data[start:stop]
    if not starts:
        return
    last, left, searched = (
        data[starts[-1] :],
        span.size - position - len(data),
        0,
    )  # it may end beyond the range
    while not (match := pattern.search(last, searched)) and left > 0 and len(last) <= MAX_RECORD:
        searched = max(len(last) - 1 - ahead, 0)
        block = span.file.read(min(BLOCK, left))
        last, left = last + block, left - len(block)
    record = last[: match.end()] if match else last
    yield position + starts[-1], record if match or len(record) <= MAX_RECORD else None


split_lines = partial(split_after, re.compile(rb"\n"), 0)


def plain_text(record: bytes) -> str:
    """UTF-8 text, including NUL and other control characters."""
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        fault = f"byte 0x{record[error.start]:02x} is not UTF-8"
        raise ValueError(f"{fault}; iconv -f cp1252 -t utf-8 converts a file of Windows") from None


def json_text(column: str, record: bytes) -> str:
    """The text of a line that holds a JSON object; "" for a blank line."""
    row = json_object(record, f"{{{json.dumps(column)}: ...}}")
    return "" if row is None else column_text(row, column)


def json_object(
    record: bytes, expected: str, pairs_hook: PairsHook | None = None
) -> dict[str, object] | None:
    """The JSON object of a line, None for a blank line; raises ValueError for anything else.

    Args:
        expected: what the object looks like, for messages.
        pairs_hook: makes objects of their keys and values.
    """
    line = plain_text(record)
    if not (content := line.strip()):
        return None
    try:
        row = json.loads(line, object_pairs_hook=pairs_hook)
    except json.JSONDecodeError as error:
        hint = " (truncated?)" if content[0] == "{" and content[-1] != "}" else ""
        column = (
            min(error.pos, len(line.rstrip())) + 1
        )  # the parser looks for more behind the end of the line
        raise ValueError(
            f"not JSON: {error.msg.removesuffix(' at')} at column {column}{hint}"
        ) from None
    except DuplicateKeyError:
        raise
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not JSON that can be read: {type(error).__name__}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{abbreviate(row)} is not an object, expected {expected}")
    return row


class DuplicateKeyError(ValueError):
    """A key occurs twice in a JSON object."""


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object without duplicate keys, a hook of `json_object`."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f"the key {abbreviate(name)} occurs twice in one object")
    return row


def column_text(row: Mapping[str, object], column: str) -> str:
    """The text in a column; raises ValueError unless it is text that UTF-8 can encode, of at most `MAX_RECORD`."""
    if column not in row:
        raise ValueError(missing_column(column, list(row)))
    text = row[column]
    if not isinstance(text, str):
        raise ValueError(f"column {column!r} holds {abbreviate(text)}, expected text")
    if len(text) > MAX_RECORD:
        raise ValueError(f"a text of {len(text)} characters, expected <= {MAX_RECORD}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a lone surrogate (\\u{ord(text[error.start]):04x}) is not a character"
        ) from None
    return text


class MissingColumnError(DataError):
    """Columns that do not exist: `missing`, in the data at `place`; `after_keys` is the message after those keys."""

    def __init__(self, place: str, missing: Sequence[str], columns: Sequence[str]) -> None:
        super().__init__(f"{place}: {_missing_columns(missing, columns)}")
        self.missing, self.after_keys = (
            missing,
            f"{_missing_columns(missing, columns, f' in {place}')}",
        )


def require_columns(place: str, names: Iterable[str], columns: Iterable[str]) -> None:
    """Raises MissingColumnError, which names them all, if some of these are not columns."""
    known = list(columns)
    if missing := [name for name in dict.fromkeys(names) if name not in known]:
        raise MissingColumnError(place, missing, known)


def missing_column(column: str, columns: Sequence[str], where: str = "") -> str:
    return f"no column {column!r}{where}, expected one of {_listed(columns)}"


def _missing_columns(missing: Sequence[str], columns: Sequence[str], where: str = "") -> str:
    if len(missing) == 1:
        return missing_column(missing[0], columns, where)
    named = ", ".join(map(repr, missing))
    return f"no columns {named}{where}, expected some of {_listed(columns)}"


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(printable, columns[:12])) or "none"


def printable(name: str) -> str:
    """A name for a message: quoted and abbreviated if it is long or has line breaks or other control characters."""
    return name if name.isprintable() and len(name) <= MAX_SHOWN else abbreviate(name)


def abbreviate(value: object) -> str:
    text = json.dumps(value, default=repr)
    return f"{text[:MAX_SHOWN]}..." if len(text) > MAX_SHOWN else text
