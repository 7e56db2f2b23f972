"""Numbers in sentences: counts with their noun, and shares in percent."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 row`, `1,309 rows`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def percent(share: float, decimals: int = 1) -> str:
    """`9.4 %`."""
    return f"{100 * share:.{decimals}f} %"
