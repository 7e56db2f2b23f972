"""Per-example losses of a run: Arrow IPC streams `example_losses/<first step>.arrows`, one record batch per step.

A stream is appended to in one `write` per batch: a killed process loses nothing that was written, and readers ignore
an incomplete batch at the end. Columns: id, step, time (seconds since 1970), targets (total weight), sum and mean of
the loss over the targets, then kl, cross_entropy and the other components of the loss, each per target; NaN where a
loss lacks it.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.sources.files import refuse_bomb
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import fsync, write_atomic
from mlxlab.files.untrusted import open_regular

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER, SUFFIX = "example_losses", ".arrows"
KEY_COLUMNS = {"id": "<i8", "step": "<i8", "time": "<f8"}  # all other columns are float32
REQUIRED = ("id", "step", "time", "sum", "mean")

Columns = dict[str, np.ndarray]  # all of the same length, (N,)


def read(source: Path) -> Columns:
    """The rows of a Parquet file, a folder of streams or a run folder: the latest step of each id, sorted by id.

    Raises:
        InputNotFoundError: no such file, or no rows in the folder.
        DataError: a file is not Arrow or Parquet, or lacks the id, step, time or loss.
    """
    folder = source / FOLDER if os.path.isdir(source / FOLDER) else source
    if not os.path.isdir(folder) and not os.path.isfile(folder):
        raise InputNotFoundError(
            f"{source}: not found; expected a run folder or a Parquet file of per-example losses"
        )
    tables = [_read_file(path) for path in (streams(folder) if folder.is_dir() else [folder])]
    if folder.is_dir() and not any(len(table["id"]) for table in tables):
        raise InputNotFoundError(
            f"{source}: no per-example losses; callbacks.example_losses.every_steps=1 writes them"
        )
    return latest(join(tables), "step", "time")


def merge(sources: Iterable[Path]) -> Columns:
    """The rows of several runs or files: the latest time of each id, sorted by id."""
    return latest(join([read(source) for source in sources]), "time", "step")


def latest(rows: Columns, first: str, then: str) -> Columns:
    """The row of each id with the largest `first`, then the largest `then`, then the last one; sorted by id."""
    order = np.lexsort(
        (rows[then], rows[first], rows["id"])
    )  # stable; the last key is the primary one
    ids = rows["id"][order]
    last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    return {name: column[order[last]] for name, column in rows.items()}


def join(tables: list[Columns]) -> Columns:
    """Concatenates tables; a column that a table lacks is filled with NaN."""
    names = list(dict.fromkeys(name for table in tables for name in table))
    missing = [np.full(len(table["id"]), np.nan, np.float32) for table in tables]
    return {
        name: np.concatenate(
            [table.get(name, nan) for table, nan in zip(tables, missing, strict=True)]
        )
        for name in names
    }


def write(rows: Columns, path: Path) -> None:
    """Writes a Parquet file atomically. NaN becomes null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            name: pa.array(column, from_pandas=name not in KEY_COLUMNS)
            for name, column in rows.items()
        }
    )
    file = pa.BufferOutputStream()
    pq.write_table(table, file, compression="zstd")
    write_atomic(path, file.getvalue().to_pybytes(), durable=True)


class StreamWriter:
    """Appends rows to a stream in `folder`; starts a new one where the columns change."""

    def __init__(self, folder: Path) -> None:
        import pyarrow  # noqa: F401  # takes 0.2 s: not during training, at the first `append`

        self.folder = folder
        self._file: int | None = None
        self._schema: object = None

    def append(self, rows: Columns) -> None:
        """Appends the rows of one step, all or none. Raises OSError."""
        import pyarrow as pa

        # By buffers: the first `pa.array` of NumPy values would import pandas, which takes longer than a hundred steps.
        arrays = [
            pa.Array.from_buffers(
                pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)]
            )
            for column in rows.values()
        ]
        batch = pa.RecordBatch.from_arrays(arrays, list(rows))
        if self._file is None or batch.schema != self._schema:
            self.close()
            self.folder.mkdir(exist_ok=True)
            path = self.folder / f"{int(rows['step'][0]):09d}{SUFFIX}"
            self._file = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
            self._schema, self._size = batch.schema, 0
        data = (b"" if self._size else bytes(batch.schema.serialize())) + bytes(batch.serialize())
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._file, self._size)  # readers stop at an incomplete batch
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
        ends = [
            end
            for batch, end in _batches(path)
            if batch["step"].to_numpy(False).max(initial=0) <= step
        ]
        if ends:
            os.truncate(path, ends[-1])
        else:
            path.unlink()


def _batches(path: Path) -> "Iterator[tuple[pa.RecordBatch, int]]":
    """The complete batches of a stream, each with the offset after it."""
    import pyarrow as pa

    with open_regular(path) as file:
        source = pa.BufferReader(file.read())
    try:
        schema = pa.ipc.read_schema(source)
        if "step" not in schema.names or schema.field("step").type != pa.int64():
            raise DataError(
                f"{path}: expected a column step of 64-bit integers, got {', '.join(schema.names)[:200]}"
            )
        while True:
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)
            batch.validate()
            yield batch, source.tell()
    except (EOFError, OSError, pa.ArrowException):
        return  # the end, or a batch that was being written when the process was killed


def _read_file(path: Path) -> Columns:
    """The rows of a stream or a Parquet file."""
    import pyarrow as pa

    try:
        if path.suffix != SUFFIX:
            table = _read_parquet(path)
        elif batches := [batch for batch, _ in _batches(path)]:
            table = pa.Table.from_batches(batches)
            _check_columns(path, table.schema)
        else:  # no step was logged completely
            return {name: np.zeros(0) for name in REQUIRED}
        table.validate(full=True)
        return {
            name: table[name].to_numpy().astype(KEY_COLUMNS.get(name, "<f4"))
            for name in table.column_names
        }
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: cannot be read as per-example losses: {reason}") from None


def _read_parquet(path: Path) -> "pa.Table":
    """A user's file: refused before it is decoded if it is a decompression bomb or has other columns."""
    from pyarrow import parquet

    with open_regular(Path(os.path.realpath(path))) as file:
        source = parquet.ParquetFile(file)
        decoded = 8 * source.metadata.num_rows * source.metadata.num_columns
        refuse_bomb(decoded, os.fstat(file.fileno()).st_size)
        _check_columns(path, source.schema_arrow)
        return source.read()


def _check_columns(path: Path, schema: "pa.Schema") -> None:
    from pyarrow import types

    missing = [name for name in REQUIRED if name not in schema.names]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(schema.names)[:200]}"
        )
    for field in schema:
        if not (types.is_integer(field.type) or types.is_floating(field.type)):
            raise DataError(
                f"{path}: column {field.name[:40]} holds {str(field.type)[:40]}, expected numbers"
            )
