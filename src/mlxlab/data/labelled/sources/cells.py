"""Values of typed formats (JSON, Parquet, the hub, arrays) as the text of a cell."""

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal

from mlxlab.data.text.sources.records import MAX_RECORD, abbreviate

KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}


def cell_text(value: object) -> str | None:
    """Text of a value: shortest repr of numbers, true or false, ISO dates, JSON of lists; None stays None.

    Raises:
        ValueError: an object, an infinite number, text that UTF-8 cannot encode, or more than `MAX_RECORD` of it.
    """
    match value:
        case None:
            return None
        case str():
            return _checked(value)
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case float():
            return _float_text(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return _checked(value.decode())
        case list():
            return _checked(_json_text(value))
        case Mapping():
            raise ValueError(f"an object ({abbreviate(value)}), expected text, a number or a list")
    raise ValueError(f"{type(value).__name__}, expected text, a number or a list")


def _float_text(value: float) -> str:
    if math.isinf(value):
        raise ValueError("expected a finite number")
    return "NaN" if math.isnan(value) else repr(value)


def _json_text(value: list[object]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=cell_text)
    except RecursionError:
        raise ValueError("a list that is nested too deep") from None


def kind_of(value: object) -> str:
    """The kind of a JSON value, which must be the same in all rows of a column."""
    return KINDS.get(type(value), "an object")


def _checked(text: str) -> str:
    if len(text) > MAX_RECORD:
        raise ValueError(f"a text of {len(text)} characters, expected <= {MAX_RECORD}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"a lone surrogate (\\u{ord(text[error.start]):04x}) is not a character"
            raise ValueError(message) from None
    return text
