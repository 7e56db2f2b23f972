"""Prints the results of a command as JSON, for programs."""

import json
from collections.abc import Callable

from mlxlab import terminal
from mlxlab.files.atomic import without_nonfinite


def print_json(value: object) -> None:
    """Null stands for NaN and infinities, which JSON does not have. Each item of a list is a line."""
    if isinstance(value, list):
        # Without indentation, Python's encoder in C writes 10,000 runs in 0.2 s instead of 2.
        items = ",\n ".join(
            _encode(item, json.JSONEncoder(allow_nan=False).encode) for item in value
        )
        print(f"[\n {items}\n]" if value else "[]")
    else:
        print(_encode(value, json.JSONEncoder(allow_nan=False, indent=1).encode))


def print_result(value: object, text: str, json: bool) -> None:
    """Prints the text, or with `json` the value."""
    if json:
        print_json(value)
    else:
        terminal.show(text)


def _encode(value: object, encode: Callable[[object], str]) -> str:
    try:
        return encode(value)
    except ValueError:  # NaN or an infinity
        return encode(without_nonfinite(value))
