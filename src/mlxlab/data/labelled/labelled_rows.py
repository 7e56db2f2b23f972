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
from mlxlab.data.labelled.options import LabelledOptions, left_out_options
from mlxlab.data.labelled.rows import Rows, open_rows
from mlxlab.data.labelled.split import SplitOptions
from mlxlab.data.text.sources.records import MissingColumnError
from mlxlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**14  # rows whose cells are Python strings at a time
NO_COLUMNS: Mapping[str, Sequence[str]] = {}


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

        return pa.chunked_array(
            [chunk for part in self.parts for chunk in part.column(name).chunks]
        )

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
        return np.concatenate(
            [
                np.zeros(0, np.uint64),
                *(hash_rows(table) for table in self.blocks(columns, np.arange(len(self)))),
            ]
        )


def hash_rows(table: Table) -> np.ndarray:
    """(N,) uint64 of the cells of each row."""
    rows = (
        "\x1f".join(cell or "" for cell in cells) for cells in zip(*table.values(), strict=True)
    )
    return np.array([xxhash.xxh3_64_intdigest(row.encode()) for row in rows], np.uint64)


@dataclass(frozen=True)
class Sources:
    """The opened sources of a data set with these options, whose column of labels is `label.column`."""

    options: LabelledOptions
    rows: LabelledRows
    label: LabelOptions
    split: SplitOptions


def open_sources(
    options: LabelledOptions,
    label_key: str,
    label_column: str,
    inputs: Mapping[str, str] | None,
    cache: Path,
    others: Mapping[str, Sequence[str]] = NO_COLUMNS,
) -> Sources:
    """Opens all sources.

    Args:
        label_key: the key of `data` that names the column of labels.
        inputs: the columns that the model reads, by the key that names each; None for all others.
        others: further columns that there must be, by the key of `data` that names them.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable;
            a column does not exist, and then one message names all of those, with their keys.
        ConfigError: two keys name the same column, or keys that split do not go together.
    """
    group, time = options["group_column"], options["time_column"]
    keys = {**(inputs or {}), label_key: label_column, "group_column": group, "time_column": time}
    _refuse_shared_columns(keys)
    paths = [options["source"], options["valid_source"], options["test_source"]]
    split = SplitOptions(
        options["valid_fraction"],
        options["folds"],
        options["fold"],
        paths[1] is not None,
        group,
        time,
    )
    columns = (
        None
        if inputs is None
        else list(dict.fromkeys(name for name in keys.values() if name is not None))
    )
    on_error, max_left_out = left_out_options(options)
    reading = (options["reading"], cache, on_error, columns, max_left_out)
    try:
        parts = [open_rows(path, *reading) for path in paths if path is not None]
        for part in parts:
            part.require(
                [
                    *filter(None, keys.values()),
                    *(name for names in others.values() for name in names),
                ]
            )
    except MissingColumnError as error:
        wrong = [f"data.{key}={name}" for key, name in keys.items() if name in error.missing]
        wrong += [
            f"data.{key}" for key, names in others.items() if not {*names}.isdisjoint(error.missing)
        ]
        raise DataError(f"{', '.join(wrong)}: {error.after_keys}") from None
    label = LabelOptions(
        label_column, options["task"], options["labels"], options["label_delimiter"]
    )
    return Sources(options, LabelledRows(parts), label, split)


def _refuse_shared_columns(keys: Mapping[str, str | None]) -> None:
    """Raises ConfigError if two keys name the same column."""
    seen: dict[str, str] = {}
    for key, name in keys.items():
        if name is not None and name in seen:
            raise ConfigError(f"data.{key}={name}: this column is data.{seen[name]} already")
        if name is not None:
            seen[name] = key
