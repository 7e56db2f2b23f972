"""Parsers from the bytes of a record to its text; they raise ValueError for a malformed record."""

import json
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

RecordParser = Callable[[bytes], str]
BOM = b"\xef\xbb\xbf"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
BLANK = re.compile(rb"\A(?:[ \t\r]*\n)+")
MAX_SHOWN = 40  # characters of a malformed record in a message


def plain_text(record: bytes) -> str:
    """UTF-8 text, including NUL and other control characters."""
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{record[error.start]:02x} is not UTF-8") from None


def paragraph_text(record: bytes) -> str:
    """UTF-8 text without surrounding blank lines."""
    return plain_text(BLANK.sub(b"", record).rstrip())


def line_text(record: bytes) -> str:
    """UTF-8 text without its line end."""
    return plain_text(record.rstrip(b"\r\n"))


def json_text(column: str) -> RecordParser:
    """A parser of lines that hold one JSON object each."""

    def read(record: bytes) -> str:
        if not record.strip():
            return ""
        try:
            row = json.loads(record.decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"byte 0x{record[error.start]:02x} is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}{_truncation_hint(record)}") from None
        except (RecursionError, ValueError) as error:
            raise ValueError(f"not JSON that can be read: {type(error).__name__}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{_abbreviate(row)} is not an object, expected {{{json.dumps(column)}: ...}}")
        if column not in row:
            raise ValueError(missing_column(column, list(row)))
        text = checked_text(row[column], column)
        if SURROGATE.search(record):
            refuse_surrogates(text)
        return text

    return read


def checked_text(value: Any, column: str) -> str:
    """Returns `value`; raises ValueError unless it is a string."""
    if not isinstance(value, str):
        raise ValueError(f"column {column!r} holds {_abbreviate(value)}, expected text")
    return value


def refuse_surrogates(text: str) -> None:
    """Raises ValueError for a lone surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate (\\u{ord(text[error.start]):04x}) is not a character") from None


def missing_column(column: str, columns: list[str]) -> str:
    close = get_close_matches(column, columns, n=1)
    hint = f"; did you mean data.text_column={close[0]}?" if close else ""
    return f"no column {column!r}, expected one of {', '.join(map(str, columns[:12])) or 'none'}{hint}"


def _truncation_hint(record: bytes) -> str:
    return " (truncated?)" if record.lstrip()[:1] == b"{" and not record.rstrip().endswith(b"}") else ""


def _abbreviate(value: Any) -> str:
    text = json.dumps(value)
    return f"{text[:MAX_SHOWN]}..." if len(text) > MAX_SHOWN else text
