"""Cells of tables in the pages of the reference."""

from collections.abc import Iterable, Sequence

from mlxlab.config.issues import one_line


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, not padded: only the generator of the site reads it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def key_table(rows: Iterable[Sequence[str]], first: str = "key") -> str:
    """A table of keys or options, which assets/site.css shows as paragraphs on a phone."""
    return f'<div class="keys" markdown>\n\n{table([first, "default", "expected", "meaning"], rows)}\n\n</div>'


def code(text: str) -> str:
    """Text as code in a cell; nothing for nothing."""
    return f"`{cell(text)}`" if text else ""


def cell(text: str) -> str:
    """Text in a cell: one line, without what ends a cell or is HTML."""
    return one_line(text, 10_000).replace("|", "\\|").replace("<", "&lt;")
