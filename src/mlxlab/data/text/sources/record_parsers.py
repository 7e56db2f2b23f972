"""From the bytes of a record to its text: UTF-8, a line of JSON, a row; whatever is wrong with it is a ValueError."""

import json
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

RecordParser = Callable[[bytes], str]
BOM = b"\xef\xbb\xbf"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
BLANK = re.compile(rb"\A(?:[ \t\r]*\n)+")
SHOWN = 40  # characters of a faulty record


def plain_text(record: bytes) -> str:
    """Bytes as they are; NUL and other control characters are text like any other."""
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{record[error.start]:02x} is not UTF-8") from None


def paragraph_text(record: bytes) -> str:
    """Without the blank lines around it."""
    return plain_text(BLANK.sub(b"", record).rstrip())


def line_text(record: bytes) -> str:
    """Without its end."""
    return plain_text(record.rstrip(b"\r\n"))


def json_text(column: str) -> RecordParser:
    """Reads the text out of a line that holds one JSON object."""

    def read(record: bytes) -> str:
        if not record.strip():
            return ""
        try:
            row = json.loads(record.decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"byte 0x{record[error.start]:02x} is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}{_torn(record)}") from None
        except (RecursionError, ValueError) as error:
            raise ValueError(f"not JSON that can be read: {type(error).__name__}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{_shown(row)} is not an object, expected {{{json.dumps(column)}: ...}}")
        if column not in row:
            raise ValueError(missing_column(column, list(row)))
        text = checked_text(row[column], column)
        if SURROGATE.search(record):
            refuse_surrogates(text)
        return text

    return read


def checked_text(value: Any, column: str) -> str:
    """`value`, if it is text."""
    if not isinstance(value, str):
        raise ValueError(f"column {column!r} holds {_shown(value)}, expected text")
    return value


def refuse_surrogates(text: str) -> None:
    """Half a surrogate pair is no character: no UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate (\\u{ord(text[error.start]):04x}) is no character") from None


def missing_column(column: str, there: list[str]) -> str:
    close = get_close_matches(column, there, n=1)
    hint = f"; did you mean data.text_column={close[0]}?" if close else ""
    return f"no column {column!r}, there is {', '.join(map(str, there[:12])) or 'none'}{hint}"


def _torn(record: bytes) -> str:
    return " (cut short?)" if record.lstrip()[:1] == b"{" and not record.rstrip().endswith(b"}") else ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return f"{text[:SHOWN]}..." if len(text) > SHOWN else text
