"""Writes predictions to a CSV or JSON lines file: a row for each row of the input, in its order."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlxlab.data.dataset import RowEncoder, Table
from mlxlab.data.sources.messages import require_columns
from mlxlab.errors import ConfigError

if TYPE_CHECKING:
    from mlxlab.inference.predict import Predictions

Format = Literal["full", "kaggle"]
Column = Sequence[object]
SUFFIXES = (".csv", ".jsonl")
_FORMULA = re.compile(
    r"[=+\-@\t\r]"
)  # first characters for which a spreadsheet runs a cell as a formula
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class PredictionFile:
    """The columns of a prediction file.

    Args:
        keep: columns of the input to copy; without any, a column `row` holds the number of each row.
        format: full writes the columns of `Predictions`; kaggle the label alone, as it stands in the label column and
            under its name.
        delimiter: between several labels in a cell of CSV; None writes a JSON list.
    """

    encoder: RowEncoder
    keep: tuple[str, ...]
    format: Format
    delimiter: str | None

    def columns(
        self, table: Table, predictions: "Predictions", rows: Sequence[int]
    ) -> Mapping[str, Column]:
        """The columns for these rows of the input; a prediction with the name of a kept one is `predicted_<name>`.

        Raises:
            DataError: a kept column is missing.
            ConfigError: two columns have one name.
        """
        own, label = predictions.columns(), self.encoder.label_column
        if self.format == "kaggle" and predictions.task.kind == "regression":
            own = {label: own["value"]}
        elif self.format == "kaggle":
            own = predictions.label_columns(label, label, self.encoder.label_cells)
        require_columns(self.keep, list(table), "keep")
        kept: dict[str, Column] = {name: table[name] for name in self.keep}
        renamed = {
            f"predicted_{name}" if name in kept else name: each for name, each in own.items()
        }
        for name in kept:
            if name in renamed:
                way = "a prediction has this name; rename the column of the input"
                raise ConfigError(f"keep={name}: {way}")
        return {**(kept or {"row": rows}), **renamed}

    def csv_lines(self, columns: Mapping[str, Column], *, header: bool) -> bytes:
        """Lines of CSV (RFC 4180, UTF-8); an apostrophe before a text that a spreadsheet would run as a formula."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if header:
            writer.writerow([defuse(name) for name in columns])
        writer.writerows(
            [self._csv_cell(value) for value in row] for row in zip(*columns.values(), strict=True)
        )
        return text.getvalue().encode()

    def _csv_cell(self, value: object) -> str:
        if isinstance(value, float):
            return f"{value:.9g}"  # all digits of a float32
        if isinstance(value, list):
            value = (
                json.dumps(value, ensure_ascii=False)
                if self.delimiter is None
                else self.delimiter.join(value)
            )
        return "" if value is None else defuse(str(value))


def json_lines(columns: Mapping[str, Column]) -> bytes:
    """A JSON object per row."""
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(
        json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows
    ).encode()


def check_output(path: Path) -> None:
    """Raises ConfigError unless the name of the file says its format."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"output={path}: expected a file that ends in {' or '.join(SUFFIXES)}")


def defuse(text: str) -> str:
    """The text of a cell, after an apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
