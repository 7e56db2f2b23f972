"""Formats numbers, intervals, durations and times; counts and shares are those of `wording`."""

from datetime import UTC, datetime
from math import isfinite

MISSING = "not finite"
# What is smaller or larger is written with an exponent.
TINY = 1e-3
HUGE = 1e5
ROUNDING_ERROR = 1e-9
_LETTERS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


def number(value: float | None, digits: int = 4) -> str:
    """So many decimals, and at most one more significant digit: `0.7416`, `69.339`, `3e-05`."""
    if value is None or not isfinite(value):
        return MISSING
    size = abs(value)
    if ROUNDING_ERROR < size < TINY or size >= HUGE:
        return f"{value:.{digits}g}"
    return f"{value:z.{_decimals(size, digits)}f}"


def compact(value: float) -> str:
    """Up to four significant digits, and whole numbers in full: `0.25`, `1024`, `nan`."""
    digits = 9 if float(value).is_integer() else 4
    return f"{value:.{digits}g}"


def rounded(value: float) -> str:
    """Two significant digits, of what is uncertain itself; all digits before the point."""
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"


def signed(value: float | None, digits: int = 4) -> str:
    sign = "+" if value is not None and value > 0 else ""
    return f"{sign}{number(value, digits)}"


def interval(pair: tuple[float, float] | None, digits: int = 4) -> str:
    """`0.7500 to 0.8500`; "" without one, or without a width, which says nothing."""
    if pair is None or pair[0] == pair[1]:
        return ""
    largest = max(map(abs, pair))
    if not TINY <= largest < HUGE:
        return f"{number(pair[0], digits)} to {number(pair[1], digits)}"
    decimals = _decimals(largest, digits)
    return f"{pair[0]:z.{decimals}f} to {pair[1]:z.{decimals}f}"


def _decimals(size: float, digits: int) -> int:
    whole = len(str(int(size)))
    return max(0, min(digits, digits + 1 - whole))


def short(value: int) -> str:
    """`22.7 M` for 22,713,216."""
    for size, letter in _LETTERS:
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return str(value)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{seconds:.0f} s"


def moment(seconds: float) -> str:
    """A time since 1970 as a date in UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.4g} s"
