"""The rows of a labelled data set: read from up to three sources, checked, and split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.fit_labels import LabelOptions
from mlxlab.data.labelled.labels import Column
from mlxlab.data.labelled.rows import RowReading, Rows, open_rows
from mlxlab.data.text.document import OnError
from mlxlab.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**14  # rows whose cells are Python strings at a time


@dataclass(frozen=True)
class RowSources:
    """Where the rows are: `source`, `valid_source`, `test_source`, `reading`, `on_error` are those keys of `data`.

    Args:
        label: the column of labels.
        group, time: the columns that have these meanings.
        inputs: the columns that the model reads, by the key that names each; None for all others.
    """

    source: str
    valid_source: str | None
    test_source: str | None
    reading: RowReading
    on_error: OnError
    label: LabelOptions
    group: str | None
    time: str | None
    inputs: Mapping[str, str] | None

    def open(self, cache: Path) -> "LabelledRows":
        """Opens all sources."""
        given = [source for source in (self.source, self.valid_source, self.test_source) if source is not None]
        special = [name for name in (self.label.column, self.group, self.time) if name is not None]
        columns = None if self.inputs is None else list(dict.fromkeys([*self.inputs.values(), *special]))
        return LabelledRows([open_rows(source, self.reading, cache, self.on_error, columns) for source in given])


class LabelledRows:
    """The rows of several sources, numbered on from one source to the next."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts, self.name = parts, parts[0].name
        self.starts = np.cumsum([0, *map(len, parts)])
        self.fingerprint = "/".join(part.fingerprint for part in parts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> "pa.ChunkedArray":
        import pyarrow as pa

        return pa.chunked_array([chunk for part in self.parts for chunk in part.column(name).chunks])

    def location(self, row: int) -> str:
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].location(row - int(self.starts[part]))

    def table(self, columns: Sequence[str], rows: np.ndarray) -> Table:
        """The cells of these rows."""
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        cells: dict[str, list[str | None]] = {name: [None] * len(rows) for name in columns}
        for number in np.unique(part_of):
            positions = np.flatnonzero(part_of == number)
            local = rows[positions] - self.starts[number]
            for name, column in cells.items():
                texts = self.parts[number].cells(name, local)
                for position, cell in zip(positions.tolist(), texts, strict=True):
                    column[position] = cell
        return cells

    def blocks(self, columns: Sequence[str], rows: np.ndarray) -> Iterator[Table]:
        """The cells of these rows, a few thousand at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self.table(columns, rows[start : start + BLOCK])

    def mean_bytes(self, columns: Sequence[str]) -> float:
        """Mean size of a row's cells in UTF-8."""
        import pyarrow.compute as pc

        sizes = [pc.sum(pc.binary_length(self.column(name))).as_py() or 0 for name in columns]
        return sum(sizes) / max(len(self), 1)

    def codes(self, name: str) -> Column:
        """A column by its distinct values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        encoded = pc.dictionary_encode(self.column(name)).unify_dictionaries()
        values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
        codes = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded.chunks]
        assert isinstance(encoded.type, pa.DictionaryType)
        return Column(name, values, np.concatenate([np.zeros(0, np.int64), *codes]), self.location)

    def blank(self, name: str) -> np.ndarray:
        """(N,) True where the cell is missing or only white space."""
        import pyarrow.compute as pc

        trimmed = pc.utf8_trim_whitespace(self.column(name))
        return np.asarray(pc.fill_null(pc.equal(trimmed, ""), True).to_numpy())

    def text_hashes(self, columns: Sequence[str]) -> np.ndarray:
        """(N,) uint64 of the cells of each row."""
        hashes = np.empty(len(self), np.uint64)
        end = 0
        for table in self.blocks(columns, np.arange(len(self))):
            for cells in zip(*table.values(), strict=True):
                hashes[end] = xxhash.xxh3_64_intdigest("\x1f".join(cell or "" for cell in cells).encode())
                end += 1
        return hashes


def reject_shared_columns(keys: Mapping[str, str | None]) -> None:
    """Raises ConfigError if two keys name the same column."""
    seen: dict[str, str] = {}
    for key, name in keys.items():
        if name is not None and name in seen:
            raise ConfigError(f"data.{key}={name}: this column is data.{seen[name]} already")
        if name is not None:
            seen[name] = key
