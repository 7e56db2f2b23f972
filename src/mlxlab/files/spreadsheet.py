"""Cells of CSV files, as a spreadsheet opens them."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

_FORMULA = re.compile(
    r"[=+\-@\t\r]"
)  # first characters for which a spreadsheet runs a cell as a formula
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def defuse(text: str) -> str:
    """The text of a cell, after an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Lines of CSV (RFC 4180, UTF-8) with defused cells."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(defuse, row) for row in rows])
    return text.getvalue().encode("utf-8", errors="backslashreplace")
