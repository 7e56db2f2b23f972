"""The name that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(typed: str, valid: Iterable[str]) -> str | None:
    """The valid name closest to `typed`: a slip of the finger, an abbreviation (`lr`), or None."""
    names = sorted(set(valid))
    close = get_close_matches(typed, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    initials = [name for name in names if typed.lower() == "".join(word[:1] for word in name.lower().split("_"))]
    if initials:
        return initials[0]
    short = [name for name in names if len(typed) > 1 and _abbreviates(typed.lower(), name.lower())]
    return min(short, key=len) if short else None


def suggestion(typed: str, valid: Iterable[str], prefix: str = "") -> str:
    """`; did you mean x?`, else the valid names if they are few, else nothing."""
    names = sorted(set(valid))
    found = nearest(typed, names)
    if found:
        return f"; did you mean {prefix}{found}?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _abbreviates(short: str, name: str) -> bool:
    letters = iter(name)
    return name[:1] == short[:1] and all(letter in letters for letter in short)
