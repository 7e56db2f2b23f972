"""Per-example losses of a run: Arrow IPC streams `example_losses/<first step>.arrows`, one record batch per step.

A stream is appended to in one `write` per batch: a killed process loses nothing that was written, and readers ignore
an incomplete batch at the end. Columns: id, step, time (seconds since 1970), targets (total weight), sum and mean of
the loss over the targets, then kl, cross_entropy and the other components of the loss, each per target; NaN where a
loss lacks it.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import fsync, write_atomic
from mlxlab.files.untrusted import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

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
    folder = source
    if os.path.isdir(source / FOLDER):
        folder = source / FOLDER
    if os.path.isfile(folder):
        tables = [_read_file(folder)]
    elif os.path.isdir(folder):
        tables = [_read_file(path) for path in streams(folder)]
        if not any(map(len, tables)):
            way = "callbacks.example_losses.every_steps=1 writes them"
            raise InputNotFoundError(f"{source}: no per-example losses; {way}")
    else:
        expected = "expected a run folder or a Parquet file of per-example losses"
        raise InputNotFoundError(f"{source}: not found; {expected}")
    return _latest(tables, "step", "time")


def merge(sources: Iterable[Path]) -> Columns:
    """The rows of several runs or files: the latest time of each id, sorted by id."""
    import pyarrow as pa

    tables = [pa.table(read(source)) for source in sources]
    return _latest(tables, "time", "step")


def _latest(tables: "Sequence[pa.Table]", first: str, then: str) -> Columns:
    """The row of each id with the largest `first`, then the largest `then`; sorted by id.

    NaN stands in a column that a table lacks.
    """
    import pyarrow as pa

    rows = pa.concat_tables(tables, promote_options="default").to_pandas()
    rows = rows.sort_values(["id", first, then]).drop_duplicates("id", keep="last")
    return {name: column.to_numpy() for name, column in rows.items()}


def write(rows: Columns, path: Path) -> None:
    """Writes a Parquet file atomically. NaN becomes null."""
    import pandas as pd

    parquet = pd.DataFrame(rows).to_parquet(engine="pyarrow", compression="zstd", index=False)
    write_atomic(path, parquet, durable=True)


class StreamWriter:
    """Appends rows to a stream in `folder`; starts a new one where the columns change."""

    def __init__(self, folder: Path) -> None:
        import pyarrow  # noqa: F401  # takes 0.2 s: not during training, at the first `append`

        self.folder = folder
        self._file: int | None = None
        self._schema: object = None
        self._size = 0

    def append(self, rows: Columns) -> None:
        """Appends the rows of one step, all or none. Raises OSError."""
        import pyarrow as pa

        # `pa.array` would import pandas, which takes longer than a hundred steps.
        arrays = [
            pa.Array.from_buffers(
                pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)]
            )
            for column in rows.values()
        ]
        batch = pa.RecordBatch.from_arrays(arrays, list(rows))
        data = bytes(batch.serialize())
        if self._file is None or batch.schema != self._schema:
            self.close()
            self.folder.mkdir(exist_ok=True)
            path = self.folder / f"{int(rows['step'][0]):09d}{SUFFIX}"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            self._schema = batch.schema
            self._size = 0
        if not self._size:
            data = bytes(batch.schema.serialize()) + data
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._file, self._size)  # Readers stop at an incomplete batch.
            raise
        self._size += len(data)

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
        if size:
            os.truncate(path, size)
        else:
            path.unlink()


def _batches(path: Path) -> "Iterator[tuple[pa.RecordBatch, int]]":
    """The complete batches of a stream, each with the offset after it."""
    import pyarrow as pa

    with open_regular(path) as file:
        source = pa.BufferReader(file.read())
    try:
        reader = pa.ipc.open_stream(source)
        _check_columns(path, reader.schema)
        for batch in reader:
            batch.validate()
            yield batch, source.tell()
    except (OSError, pa.ArrowException):
        return  # The end, or a batch that was being written when the process was killed.


def _read_file(path: Path) -> "pa.Table":
    """The rows of a stream or a Parquet file."""
    import pyarrow as pa

    try:
        if path.suffix == SUFFIX:
            batches = [batch for batch, _ in _batches(path)]
            # There is none if no step was logged completely.
            table = pa.Table.from_batches(batches, None if batches else _schema(REQUIRED))
        else:
            table = _read_parquet(path)
        table.validate(full=True)
        return table.cast(_schema(table.column_names))
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"{path}: cannot be read as per-example losses: {reason}") from None


def _read_parquet(path: Path) -> "pa.Table":
    """A user's file: refused before it is decoded if it has other columns."""
    from pyarrow import parquet

    with open_regular(Path(os.path.realpath(path))) as file:
        source = parquet.ParquetFile(file)
        _check_columns(path, source.schema_arrow)
        return source.read()


def _schema(names: Sequence[str]) -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, TYPES.get(name, "float32")) for name in names])


def _check_columns(path: Path, schema: "pa.Schema") -> None:
    from pyarrow import types

    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        listed = ", ".join(schema.names)[:200]
        raise DataError(f"{path}: no column {', '.join(missing)}; it has {listed}")
    for field in schema:
        if not (types.is_integer(field.type) or types.is_floating(field.type)):
            kind = str(field.type)[:40]
            raise DataError(f"{path}: column {field.name[:40]} holds {kind}, expected numbers")
