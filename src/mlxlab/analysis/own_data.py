"""Counts rows of your own without training: what a run would read, leave out and split."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.errors import DataError
from mlxlab.terminal.tables import markdown_table

if TYPE_CHECKING:
    from mlxlab.data.labelled.dataset import LabelledDataset
    from mlxlab.data.labelled.rows import Part, Rows
    from mlxlab.data.labelled.types import ColumnType


class ColumnSummary(NamedTuple):
    """A column of a source: its type, how many cells are missing, how many different values there are."""

    name: str
    type: str
    missing: int
    values: int
    first: str  # value, shortened
    fault: str  # the first cell that is not of the type


def summarize(rows: "Rows", types: "Mapping[str, ColumnType]") -> list[ColumnSummary]:
    """All columns of a source.

    Args:
        types: those that are known; others are inferred from all rows.
    """
    from mlxlab.data.labelled.types import distinct_texts, fit_type, read_column, shorten

    summaries: list[ColumnSummary] = []
    for name in rows.columns:
        cells = rows.column(name)
        texts, codes = distinct_texts(cells)
        column_type = types.get(name) or fit_type(cells)
        fault = ""
        try:
            read_column(name, cells, column_type, rows.location)
        except DataError as error:
            fault = str(error)
        first = ""
        if texts:
            first = shorten(texts[0])
        missing = int((codes < 0).sum())
        summaries.append(ColumnSummary(name, column_type.kind, missing, len(texts), first, fault))
    return summaries


def column_table(columns: list[ColumnSummary], part: "Part") -> str:
    """The number of rows, and the type of each column; then the first cell of each that is not of its type."""
    head = ["column", "type", "missing", "distinct values", "first"]
    cells = [
        [_cell(each.name), each.type, f"{each.missing:,}", f"{each.values:,}", _cell(each.first)]
        for each in columns
    ]
    skipped = ""
    if part.num_malformed:
        first = f", the first: {part.first_malformed}"
        skipped = f", and {part.num_malformed:,} that cannot be read{first}"
    faults = "".join(f"\n\n{each.fault}" for each in columns if each.fault)
    table = markdown_table(head, cells, "llrrl")
    return f"{part.source.name}: {len(part.table):,} rows{skipped}\n\n{table}{faults}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def read_rows(node: dict[str, Any]) -> "Part":
    """The rows of a data node, without those that cannot be read."""
    from mlxlab.data.labelled.rows import open_rows
    from mlxlab.data.sources.open import Reading

    reading = instantiate(node["reading"], Reading)
    cache = project_root() / ".cache"
    return open_rows(node["source"], reading, cache, "skip", None, node["max_left_out"])


def build_dataset(config: dict[str, Any]) -> "LabelledDataset":
    """The data as a run of the config has it, but for rows that cannot be used, which are counted and left out."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.evaluation.parts.data import build_data

    lenient = {"on_error": "skip", "max_left_out": 0.99, "prefetch": 0, "baselines": False}
    node = config["data"] | lenient
    with tempfile.TemporaryDirectory() as folder:
        dataset: Any = build_data(config | {"data": node}, project_root(), None, Path(folder))
    return dataset


def describe_dataset(dataset: "LabelledDataset") -> dict[str, Any]:
    """What a run would read, leave out and split."""
    lengths = dataset.row_lengths
    truncated = 0
    messages = list(dataset.sources)
    if lengths is not None and lengths.too_long:
        truncated = lengths.too_long
        messages.append(lengths.describe())
    return {
        "rows": dataset.num_examples,
        "left_out": dataset.left_out_rows,
        "truncated": truncated,
        "classes": dict(zip(dataset.task.labels, dataset.class_counts, strict=False)),
        "messages": messages,
    }
