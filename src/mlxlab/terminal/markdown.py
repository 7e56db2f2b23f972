"""Markdown tables, aligned for reading as text."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "lr") -> str:
    """A table as lines of Markdown. `align`: a letter per column, l or r; the last holds for all further columns.

    Line breaks and control characters, which a terminal would obey, become spaces.
    """
    lines = [[*map(_visible, line)] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    columns = list(zip(widths, align.ljust(len(head), align[-1]), strict=False))
    row = "".join(f"| {{:{'<' if side == 'l' else '>'}{width}}} " for width, side in columns) + "|"
    rule = (
        "".join(f"|{'-' * (width + 1)}{'-' if side == 'l' else ':'}" for width, side in columns)
        + "|"
    )
    return "\n".join([row.format(*lines[0]), rule, *(row.format(*line) for line in lines[1:])])


def _visible(text: str) -> str:
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else " " for char in text)
    )
