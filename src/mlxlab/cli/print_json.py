"""Prints the results of a command as JSON, for programs."""

import json

from mlxlab import terminal
from mlxlab.files.atomic import without_nonfinite


def print_json(value: object) -> None:
    """Null stands for NaN and infinities, which JSON does not have."""
    print(json.dumps(without_nonfinite(value), allow_nan=False, indent=1))


def print_result(value: object, text: str, json: bool) -> None:
    """Prints the text, or with `json` the value."""
    if json:
        print_json(value)
    else:
        terminal.show(text)
