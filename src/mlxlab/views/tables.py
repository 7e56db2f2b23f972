"""One table for three outputs: HTML by a macro of the templates, Markdown and terminal here."""

from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from mlxlab.terminal.tables import markdown_table
from mlxlab.views.escape import Escape

_ALIGN = {"number": "r", "text": "l", "prose": "l"}


@dataclass(frozen=True)
class Column:
    """`kind` is text, number, or prose, which takes the width that is left."""

    name: str
    kind: str = "text"


def numeric(*names: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(name, "number") for name in names]


@dataclass
class Table:
    """Cells are formatted values; each output escapes them.

    Attributes:
        strong: index of the row that is highlighted, such as this model among its baselines.
        limit: rows that are shown.
        rest: where the others are.
    """

    kind: ClassVar[str] = "table"

    columns: list[Column]
    rows: list[list[str]] = field(default_factory=list)
    strong: int | None = None
    limit: int = 200
    rest: str = ""

    def add(self, row: list[str], *, strong: bool = False) -> None:
        if strong:
            self.strong = len(self.rows)
        self.rows.append(row)

    @property
    def shown(self) -> list[list[str]]:
        return self.rows[: self.limit]

    @property
    def hidden(self) -> int:
        return len(self.rows) - len(self.shown)

    def markdown(self, escape: Escape) -> Markup:
        """The table in Markdown, which a terminal shows as well."""
        head = [str(escape(column.name)) for column in self.columns]
        rows = []
        for row in self.shown:
            rows.append([str(escape(cell)) for cell in row])
        align = "".join(_ALIGN[column.kind] for column in self.columns)
        return Markup(markdown_table(head, rows, align))
