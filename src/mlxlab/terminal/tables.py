"""Markdown tables, aligned for reading as text, and as lists where they are wider than the terminal."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from textwrap import wrap

_TABLE = re.compile(r"^\|.*\n\|(?:-+:?\|)+(?:\n\|.*)*", re.MULTILINE)


def fit_tables(text: str, width: int, heading: Callable[[str], str] = str) -> str:
    """The text, in which each table that is wider than `width` is a list.

    The first cell of a row is the heading of the others, each of which has a line with the name of its column. Tables
    are as `markdown_table` makes them: all lines are of equal length.
    """

    def fit(table: re.Match[str]) -> str:
        lines = table[0].splitlines()
        if len(lines[0]) <= width:
            return table[0]
        return "\n".join(_as_list(lines, width, heading))

    return _TABLE.sub(fit, text)


def _as_list(table: list[str], width: int, heading: Callable[[str], str]) -> Iterator[str]:
    bars = [match.start() for match in re.finditer(r"\|", table[1])]  # A cell may contain others.
    head, _, *rows = ([line[a + 1 : b].strip() for a, b in pairwise(bars)] for line in table)
    if len(head) == 2:
        column = _column([row[0] for row in [head, *rows]], width)
        pairs = [hang(name, value, column, width) for name, value in [head, *rows]]
        first, *lines = chain.from_iterable(pairs)
        yield heading(first)
        yield from lines
        return
    column = _column([f"  {name}" for name in head[1:]], width)
    for title, *values in rows:
        yield heading(title or "-")
        for name, value in zip(head[1:], values, strict=True):
            if value:
                yield from hang(f"  {name}", value, column, width)


def _column(names: list[str], width: int) -> int:
    """Where values begin after their names; longer names get a line of their own."""
    return min(max(map(len, names)) + 2, 2 * width // 3)


def hang(head: str, text: str, column: int, width: int) -> list[str]:
    """`head`, and `text` from `column` on, in lines of at most `width`; words that are longer are not broken.

    A head that reaches the column gets a line of its own.
    """
    indent = "".ljust(column)
    is_long = head != "" and len(head) >= column
    lines = wrap(
        text,
        max(width, column + 1),
        initial_indent=indent if is_long else head.ljust(column),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if is_long or not lines:
        return [head.rstrip(), *lines]
    return lines


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "lr") -> str:
    """A table as lines of Markdown. `align`: a letter per column, l or r; the last holds for all further columns.

    Line breaks and control characters, which a terminal would obey, become spaces.
    """
    lines = [[*map(_visible, line)] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    columns = list(zip(widths, align.ljust(len(head), align[-1]), strict=False))
    row = ""
    rule = ""
    for width, side in columns:
        if side == "l":
            row += f"| {{:<{width}}} "
            rule += f"|{'-' * (width + 2)}"
        else:
            row += f"| {{:>{width}}} "
            rule += f"|{'-' * (width + 1)}:"
    first, *others = [f"{row}|".format(*line) for line in lines]
    return "\n".join([first, f"{rule}|", *others])


def _visible(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
