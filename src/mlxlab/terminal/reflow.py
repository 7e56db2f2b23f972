"""Wraps help texts, which are written for 120 columns, for a narrower terminal."""

import re
from collections.abc import Iterator

from mlxlab.terminal.tables import hang

MIN_TEXT = 20  # columns of text after a head; with less it is placed below
_BELOW = 6  # columns by which text below its head is indented
_COLUMNS = re.compile(r"( *\S.*?  +)(\S.*)")  # a head, two spaces or more, a text
_COMMAND = re.compile(r" +([\w./-]*\.py|mlxlab|pip|python|eval)\b")


def reflow(text: str, width: int) -> str:
    """The text in lines of at most `width`: paragraphs are wrapped, and texts after a head are aligned.

    A command is never broken: a terminal wraps it so that it can be copied.
    """
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        "\n".join(_fit(each.split("\n"), width))
        if max(map(len, each.split("\n"))) > width
        else each
        for each in paragraphs
    )


def _fit(lines: list[str], width: int) -> Iterator[str]:
    while lines:
        line = lines.pop(0)
        indent = len(line) - len(line.lstrip())
        columns = _COLUMNS.fullmatch(line)
        command = _COMMAND.match(line)
        if columns:
            start = len(columns[1])
            body = [columns[2], *_continuation(lines, start)]
            yield from _beside(columns[1].rstrip(), " ".join(body), start, indent, width)
        elif lines and _indent(lines[0]) >= max(
            indent + 1, MIN_TEXT
        ):  # the text of a head that has a line of its own
            start = _indent(lines[0])
            yield from _beside(line, " ".join(_continuation(lines, start)), start, indent, width)
        elif command:
            yield line
        else:
            body = [line.strip(), *_continuation(lines, indent)]
            yield from hang("", " ".join(body), indent, width)


def _beside(head: str, text: str, start: int, indent: int, width: int) -> Iterator[str]:
    if width - start >= MIN_TEXT:
        yield from hang(head, text, start, width)
    else:
        yield head
        yield from hang("", text, indent + _BELOW, width)


def _continuation(lines: list[str], indent: int) -> Iterator[str]:
    """Removes and yields the next lines that have this indentation and no columns of their own."""
    while (
        lines
        and _indent(lines[0]) == indent
        and not _COLUMNS.fullmatch(lines[0])
        and not _COMMAND.match(lines[0])
    ):
        yield lines.pop(0).strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
