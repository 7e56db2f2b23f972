"""The columns of rows of your own, and what to do with them."""

import re
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.schema.signature import signature
from mlxlab.markdown import markdown_table
from mlxlab.program import join, quoted

if TYPE_CHECKING:
    from mlxlab.data.labelled.columns import ColumnSummary
    from mlxlab.data.labelled.rows import Rows

MAX_NAMED = 5  # columns that may be the label


def show_columns(
    columns: "list[ColumnSummary]", rows: "Rows", args: list[str], json: bool, *, is_table: bool
) -> None:
    """The columns alone, and the command that checks more; `args` choose none of them."""
    from mlxlab.data.labelled.columns import label_candidates, likely_text

    chosen = {"data.target": "COLUMN"}
    text, labels = likely_text(columns), label_candidates(columns)
    if likely := not is_table and text is not None and bool(labels):
        assert text is not None
        chosen = {"data.text_column": text.name, "data.label_column": labels[0].name}
    check = f"mlxlab info data {join([*args, *(_override(*each) for each in chosen.items())])}"
    if json:
        print_json(
            {"columns": [each._asdict() for each in columns], "rows": len(rows), "next": check}
        )
        return
    what = (
        "your text and label in place of these guesses"
        if likely
        else "the column to predict as COLUMN"
    )
    lines = [column_table(columns, rows), "", *_hints(columns), f"next, with {what}: {check}"]
    if likely and (others := ", ".join(each.name for each in labels[1:MAX_NAMED])):
        lines.append(f"columns that may be the label too: {others}")
    if all(
        each.content in ("text", "nothing", "dates") and not each.may_be_label for each in columns
    ):
        longest = max(columns, key=lambda each: each.mean_length).name
        source = [arg for arg in args if arg.partition("=")[0] in _of_language_models()]
        model = [
            "model=transformer",
            "data=streaming",
            *source,
            _override("data.text_column", longest),
        ]
        lines[2:] = [
            f"no column looks like a label; a language model needs none: mlxlab train {join(model)}"
        ]
    terminal.show("\n".join(lines))


def _of_language_models() -> set[str]:
    """The keys of a source that `data=streaming` has too."""
    reading = signature("mlxlab.data.text.sources.open.Reading")
    return {"data.source", *(f"data.reading.{key}" for key in (reading.keys if reading else ()))}


def column_table(columns: "list[ColumnSummary]", rows: "Rows") -> str:
    """The number of rows, and what each column holds."""
    head = ["column", "holds", "missing", "different values", "first"]
    cells = [
        [
            _cell(each.name),
            _content(each),
            f"{each.missing:,}",
            f"{each.values:,}",
            _cell(each.first),
        ]
        for each in columns
    ]
    skipped = f", and {rows.malformed:,} that cannot be read" if rows.malformed else ""
    skipped += f", the first: {rows.first_malformed.text}" if rows.first_malformed else ""
    return f"{rows.name}: {len(rows):,} rows{skipped}\n\n{markdown_table(head, cells, 'llrrl')}"


def _hints(columns: "list[ColumnSummary]") -> list[str]:
    """Lines on a header that looks like a row, and on columns that a split can use."""
    from mlxlab.data.labelled.labels import is_number

    lines = []
    if cells := [each.name for each in columns if each.name_is_value or is_number(each.name)]:
        got = ", ".join(map(repr, cells[:MAX_NAMED]))
        lines.append(
            f"is the first line a row? {got} does not look like a name; a file needs a line of names above its rows"
        )
    if dates := [each.name for each in columns if each.content == "dates"]:
        keys = " or ".join(
            quoted(_override("data.time_column", name)) for name in dates[:MAX_NAMED]
        )
        lines.append(f"dates: {keys} validates on the latest rows")
    return lines


def _content(column: "ColumnSummary") -> str:
    if not column.num_no_numbers:
        return column.content
    return _cell(
        f"probably numbers, with text such as {column.no_number!r} in {column.num_no_numbers:,} cells"
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _override(key: str, name: str) -> str:
    """`key=name`, with quotation marks for Hydra where the name needs them."""
    from mlxlab.config.hydra.recorded_overrides import override_text

    is_word = name.lower() in ("null", "true", "false", "nan", "inf")  # to Hydra
    is_plain = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and not is_word
    return f"{key}={name}" if is_plain else override_text(key, name)
