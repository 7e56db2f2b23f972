"""Parts of sentences: counts with their noun, shares in percent, and choices."""

from collections.abc import Iterable


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 row`, `1,309 rows`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def percent(share: float, decimals: int = 1, *, signed: bool = False) -> str:
    """`9.4 %`, signed `+9.4 %`."""
    return f"{100 * share:{'+' * signed}.{decimals}f} %"


def one_of(names: Iterable[str]) -> str:
    """`one of a, b`, and `a` where there is no other."""
    listed = [*names]
    return f"{'one of ' * (len(listed) > 1)}{', '.join(listed)}"
