"""Markdown tables, aligned so that they can be read as plain text too."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "lr") -> str:
    """A table as lines of Markdown.

    Args:
        align: a letter per column, l (left) or r (right); the last one holds for all further columns.
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    sides = align.ljust(len(head), align[-1])
    rule = [f"{'-' * (width + 1)}{'-' if side == 'l' else ':'}" for width, side in zip(widths, sides, strict=False)]
    text = ["| " + " | ".join(_pad(line, widths, sides)) + " |" for line in lines]
    return "\n".join([text[0], f"|{'|'.join(rule)}|", *text[1:]])


def _pad(cells: Sequence[str], widths: Sequence[int], sides: str) -> list[str]:
    columns = zip(cells, widths, sides, strict=False)
    return [cell.ljust(width) if side == "l" else cell.rjust(width) for cell, width, side in columns]
