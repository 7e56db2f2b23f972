"""Markdown tables, aligned for reading as text, and texts that hang behind their heads."""

from collections.abc import Iterable, Sequence
from textwrap import wrap


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
