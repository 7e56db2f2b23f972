"""Predicts the rows of a file piece by piece, however large it is, and writes a row for each of them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from mlxlab.data.dataset import RowEncoder, Table
from mlxlab.data.labelled.rows import location_of, text_blocks
from mlxlab.data.sources.block import ErrorBudget, OnError, Source
from mlxlab.data.sources.messages import MissingColumnError, require_columns
from mlxlab.data.sources.open import open_source
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.atomic import open_atomic, remove_leftovers
from mlxlab.files.spreadsheet import csv_lines
from mlxlab.inference.eval_data import (
    forget_source,
    override_data,
    refuse_without_effect,
    row_source,
)
from mlxlab.inference.predict import (
    MalformedRowError,
    Predictions,
    UnseenCategories,
    predict_usable,
    row_encoder,
    row_reading,
    trained_on,
)
from mlxlab.inference.restore import RestoredModel

HINT = "; nothing was written (on_error=skip leaves out up to max_left_out of the rows)"
Format = Literal["full", "kaggle"]
Column = Sequence[object]


class Written(NamedTuple):
    """How many rows were written and left out, and what a reader of the predictions should know."""

    rows: int
    left_out: int
    notes: list[str]


def predict_file(
    restored: RestoredModel,
    source: str,
    output: Path,
    *,
    overrides: dict[str, str],
    keep: Sequence[str] = (),
    format: Format = "full",
    batch_size: int = 64,
    on_error: OnError = "strict",
    max_left_out: float = 0.01,
) -> Written:
    """Writes a prediction for each row of a file, whole or not at all.

    Raises:
        ConfigError: an override is invalid, a kept column is missing, or the output is a file of the input.
        DataError: a column of the model is missing, or more rows cannot be read than may be left out.
        OSError: the output cannot be written.
    """
    encoder = row_encoder(restored.encoder)
    node = override_data(restored, overrides)
    refuse_without_effect(overrides, {"reading"})
    forget_source(node, overrides)
    reading = row_reading(node)
    errors = ErrorBudget(on_error, max_left_out)
    opened = open_source(row_source(restored, source), reading, errors)
    names = opened.columns()
    _refuse_overwriting(opened, output)

    file = PredictionFile(encoder, tuple(keep), format, node.get("label_delimiter"))
    unseen = UnseenCategories()
    columns = list(dict.fromkeys([*encoder.columns, *keep]))
    blocks = text_blocks(opened, columns, reading.missing, errors)
    count = 0
    try:
        remove_leftovers(output.parent)
        with (
            open_atomic(output) as stream,
            tqdm(unit=" rows", disable=None, dynamic_ncols=True) as bar,
        ):
            for block in blocks:
                locations = [location_of(opened, place) for place in block.places.tolist()]
                cells = block.columns.to_pydict()
                rows, usable, predictions = predict_usable(
                    restored, cells, locations, batch_size, errors
                )
                unseen.add(encoder, usable)
                written = file.columns(usable, predictions, block.numbers[rows].tolist())
                if output.suffix == ".csv":
                    stream.write(file.csv_lines(written, header=not stream.tell()))
                else:
                    stream.write(json_lines(written))
                count += len(rows)
                bar.update(len(locations))
            errors.check()
    except MissingColumnError as error:
        missing = [name for name in error.missing if name not in keep]
        if not missing:
            raise ConfigError(f"keep={','.join(error.missing)}: {error}") from None
        raise trained_on(error, missing) from None
    except MalformedRowError as error:
        raise DataError(f"{error}{HINT}") from None

    notes = unseen.lines()
    read = {*encoder.columns, encoder.label_column, *keep}
    unread = [name for name in names if name not in read]
    if unread:
        notes.insert(0, f"columns that the model does not read: {', '.join(unread)}")
    return Written(count, errors.skipped, notes)


def _refuse_overwriting(source: Source, output: Path) -> None:
    files = getattr(source, "files", None)
    if files is None or not output.exists():
        return
    if any(os.path.samefile(output, files.path(index)) for index in range(len(files))):
        raise ConfigError(f"output={output}: is a file of the input")


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
        self, table: Table, predictions: Predictions, rows: Sequence[int]
    ) -> Mapping[str, Column]:
        """The columns for these rows of the input; a prediction with the name of a kept one is `predicted_<name>`.

        Raises:
            DataError: a kept column is missing.
        """
        own = predictions.columns()
        label = self.encoder.label_column
        if self.format == "kaggle" and predictions.task.kind == "regression":
            own = {label: own["value"]}
        elif self.format == "kaggle":
            own = predictions.label_columns(label, label, self.encoder.label_cells)
        require_columns(self.keep, list(table), "keep")
        kept: dict[str, Column] = {name: table[name] for name in self.keep}
        renamed = {
            f"predicted_{name}" if name in kept else name: each for name, each in own.items()
        }
        return {**(kept or {"row": rows}), **renamed}

    def csv_lines(self, columns: Mapping[str, Column], *, header: bool) -> bytes:
        """The rows of these columns as CSV, after their names."""
        rows = [[*map(self._csv_cell, row)] for row in zip(*columns.values(), strict=True)]
        if header:
            rows.insert(0, [*columns])
        return csv_lines(rows)

    def _csv_cell(self, value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:.9g}"  # all digits of a float32
        if isinstance(value, list) and self.delimiter is not None:
            return self.delimiter.join(value)
        if isinstance(value, list):
            return json.dumps(value, ensure_ascii=False)
        return str(value)


def json_lines(columns: Mapping[str, Column]) -> bytes:
    """A JSON object per row."""
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(
        json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows
    ).encode()
