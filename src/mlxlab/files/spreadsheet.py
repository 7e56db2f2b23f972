"""Cells of CSV files, as a spreadsheet opens them."""

import re

_FORMULA = re.compile(
    r"[=+\-@\t\r]"
)  # first characters for which a spreadsheet runs a cell as a formula
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def defuse(text: str) -> str:
    """The text of a cell, after an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
