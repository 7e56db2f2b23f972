"""Parts of error messages: a value on one line, columns that do not exist."""

import json
from collections.abc import Iterable, Sequence

from mlxlab.errors import DataError
from mlxlab.terminal.nearest import did_you_mean, nearest
from mlxlab.terminal.wording import CHOICES, some

MAX_SHOWN = 40


class MissingColumnError(DataError):
    """Columns that do not exist, `missing`."""

    def __init__(self, where: str, missing: Sequence[str], existing: Sequence[str]) -> None:
        named = ", ".join(repr(printable(name)) for name in missing)
        listed = some(list(map(printable, existing)), CHOICES) or "none"
        hint = did_you_mean(nearest(missing[0], existing))
        super().__init__(f"{where}: no column {named}, expected one of {listed}{hint}")
        self.missing = missing


def require_columns(columns: Iterable[str], existing: Sequence[str], where: str) -> None:
    """Raises MissingColumnError if some of these columns do not exist, and DataError if there are two of a name."""
    names = list(dict.fromkeys(columns))
    missing = [name for name in names if name not in existing]
    if missing:
        raise MissingColumnError(where, missing, existing)
    for name in names:
        if existing.count(name) > 1:
            raise DataError(f"{where}: column {name!r} occurs twice")


def printable(name: str) -> str:
    """A name, quoted and shortened if it is long or has control characters."""
    if name.isprintable() and len(name) <= MAX_SHOWN:
        return name
    return shorten(name)


def shorten(value: object) -> str:
    """A value on one line, with control characters escaped."""
    text = json.dumps(value, default=repr)
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[:MAX_SHOWN]}..."


def first_line(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {line}"[:200]
