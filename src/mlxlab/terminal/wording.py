"""Parts of sentences: counts with their noun, shares in percent, values, and choices."""

import json
from collections.abc import Iterable, Sequence

SHOWN = 4  # names, where there are many
CHOICES = 12  # A message lists so many names where one of them is expected.


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 row`, `1,309 rows`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def percent(share: float, decimals: int = 1, *, signed: bool = False) -> str:
    """`9.4 %`, signed `+9.4 %`."""
    sign = "+" if signed else ""
    return f"{100 * share:{sign}.{decimals}f} %"


def one_of(names: Iterable[str]) -> str:
    """`one of a, b`, and `a` where there is no other."""
    listed = [*names]
    text = ", ".join(listed)
    if len(listed) > 1:
        return f"one of {text}"
    return text


def some(names: Sequence[str], count: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(names[:count])
    if len(names) > count:
        text += f" and {len(names) - count} more"
    return text


def one_line(text: str, max_length: int = 500) -> str:
    """Text without line breaks and control characters, truncated to `max_length`."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= max_length else flat[: max_length - 3] + "..."


def shown(value: object) -> str:
    """A value as one types it, truncated to 60 characters."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return one_line(repr(value) if isinstance(value, list | dict) else str(value), 60)
