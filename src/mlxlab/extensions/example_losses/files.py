"""Per-example losses of a run: Arrow IPC streams `example_losses/<first step>.arrows`, one record batch per step.

A stream is appended to in one `write` per batch: a killed process loses nothing that was written, and readers ignore
an incomplete batch at the end. Columns: id, step, time (seconds since 1970), targets (total weight), sum and mean of
the loss over the targets, then kl, cross_entropy and the other components of the loss, each per target; NaN where a
loss lacks it.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlxlab.data.sources.messages import first_line
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import fsync
from mlxlab.files.untrusted import open_regular

FOLDER = "example_losses"
SUFFIX = ".arrows"
TYPES = {"id": "int64", "step": "int64", "time": "float64"}  # all other columns are float32
REQUIRED = ("id", "step", "time", "sum", "mean")

Columns = dict[str, np.ndarray]  # all of the same length, (N,)


def read(source: Path) -> Columns:
    """The rows of a Parquet file, a folder of streams or a run folder: the latest step of each id, sorted by id.

    Raises:
        InputNotFoundError: no such file, or no rows in the folder.
        DataError: a file is not Arrow or Parquet, or lacks the id, step, time or loss.
    """
    if not os.path.exists(source):
        raise InputNotFoundError(f"{source}: no such file or folder")
    if not source.is_dir():
        return _latest([_read_file(source)])
    tables = [_read_file(path) for path in streams(source) + streams(source / FOLDER)]
    if not any(map(len, tables)):
        raise InputNotFoundError(f"{source}: no per-example losses (callbacks.example_losses)")
    return _latest(tables)


def read_finite(source: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids that have a finite value in a column, and these values. Raises as `read`."""
    rows = read(Path(os.path.expanduser(source)))
    values = rows.get(column, np.full(len(rows["id"]), np.nan))
    is_finite = np.isfinite(values)
    if not is_finite.any():
        raise DataError(f"{source}: expected a finite {column}, got none in {len(values):,} rows")
    return rows["id"][is_finite], values[is_finite]


class StreamWriter:
    """Appends rows to a stream in `folder`; starts a new one after a fault, or where columns change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: int | None = None
        self._schema: pa.Schema | None = None  # schema of the open stream

    def append(self, rows: Columns) -> None:
        """Appends the rows of one step. Raises OSError; readers stop at an incomplete batch."""
        batch = _to_batch(rows)
        data = bytes(batch.serialize())
        if self._file is None or batch.schema != self._schema:
            self.close()
            self.folder.mkdir(exist_ok=True)
            path = self.folder / f"{int(rows['step'][0]):09d}{SUFFIX}"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            data = bytes(batch.schema.serialize()) + data
        self._schema = None
        if os.write(self._file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._schema = batch.schema

    def close(self) -> None:
        if self._file is not None:
            fsync(self._file)
            os.close(self._file)
            self._file = None


def streams(folder: Path) -> list[Path]:
    """The streams in a folder, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def truncate(folder: Path, step: int) -> None:
    """Removes the rows after `step`, and incomplete batches."""
    for path in streams(folder):
        size = 0
        for batch, end in _batches(path):
            if batch["step"].to_numpy(False).max(initial=0) <= step:
                size = end
        os.truncate(path, size)


def _to_batch(rows: Columns) -> pa.RecordBatch:
    arrays: list[pa.Array] = []
    for column in rows.values():
        # `pa.array` would import pandas, which takes longer than a hundred steps.
        buffers = [None, pa.py_buffer(column)]
        kind = pa.from_numpy_dtype(column.dtype)
        arrays.append(pa.Array.from_buffers(kind, len(column), buffers))
    return pa.RecordBatch.from_arrays(arrays, list(rows))


def _latest(tables: Sequence[pa.Table]) -> Columns:
    """The row of each id with the largest step, then the largest time; sorted by id.

    NaN stands in a column that a table lacks.
    """
    rows = pa.concat_tables(tables, promote_options="default").to_pandas()
    rows = rows.sort_values(["id", "step", "time"]).drop_duplicates("id", keep="last")
    return {name: column.to_numpy() for name, column in rows.items()}


def _read_file(path: Path) -> pa.Table:
    """The rows of a stream or a Parquet file."""
    try:
        if path.suffix == SUFFIX:
            batches = [batch for batch, _ in _batches(path)]
            # There is no batch if no step was logged completely.
            table = pa.Table.from_batches(batches, None if batches else _schema(REQUIRED))
        else:
            import pyarrow.parquet as pq

            with open_regular(path) as file:
                table = pq.read_table(file)
            _require_columns(path, table.column_names)
            table.validate(full=True)
        return table.cast(_schema(table.column_names))
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = first_line(error)
        raise DataError(f"{path}: cannot be read as per-example losses: {reason}") from None


def _batches(path: Path) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The complete batches of a stream, each with the offset after it."""
    with open_regular(path) as file:
        source = pa.BufferReader(file.read())
    try:
        reader = pa.ipc.open_stream(source)
        _require_columns(path, reader.schema.names)
        for batch in reader:
            batch.validate(full=True)
            yield batch, source.tell()
    except (OSError, pa.ArrowException):
        return  # The end, or a batch that was being written when the process was killed.


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, TYPES.get(name, "float32")) for name in names])


def _require_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        listed = ", ".join(names)[:200]
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {listed}")
