"""Rows as an Arrow file that is memory-mapped, in the cache folder.

The file is 64 bytes, which hold the digest of the rest, then an Arrow IPC file: nullable strings, after a first column
without a name that holds the place of each row.
"""

import logging
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import xxhash

from mlxlab.data.labelled.sources.source import Chunk
from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import remove_leftovers, temporary_name
from mlxlab.files.untrusted import open_regular

if TYPE_CHECKING:
    import pyarrow

HEADER_BYTES, BLOCK = 64, 2**24
PLACE = ""  # name of the first column; columns of a source have one
log = logging.getLogger(__name__)


def cached_table(path: Path, chunks: Callable[[], Iterable[Chunk]]) -> "pyarrow.Table":
    """The memory-mapped table of a cache file, or of `chunks`, which are then cached.

    Concurrent processes may do this: each writes a file of its own and renames it. A damaged file is built again with
    a warning; where none can be written, a temporary file takes its place.

    Raises:
        WriteError: there is no space for a temporary file either.
    """
    try:
        with open_regular(path) as file:
            return _map(file)
    except InputNotFoundError:
        pass
    except DataError as error:
        log.warning("the cache %s is corrupt (%s); it is built again", path, error)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        return _build(path, chunks())
    except OSError as error:
        log.warning("the cache %s could not be written (%s)", path, error)
    try:
        with tempfile.TemporaryFile() as file:
            _write(file, chunks())
            return _map(file)
    except OSError as error:
        raise WriteError(f"{tempfile.gettempdir()}: the rows could not be written ({error})") from None


def _build(path: Path, chunks: Iterable[Chunk]) -> "pyarrow.Table":
    temporary = temporary_name(path)
    try:
        with temporary.open("x+b") as file:
            _write(file, chunks)
            table = _map(file)
        temporary.replace(path)
        return table
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: BinaryIO, chunks: Iterable[Chunk]) -> None:
    import pyarrow

    writer = None
    file.write(bytes(HEADER_BYTES))
    for chunk in chunks:
        batch = to_batch(chunk)
        if writer is None:
            writer = pyarrow.ipc.new_file(file, batch.schema)
        writer.write_batch(batch)
    assert writer is not None, "a source without rows is refused before"
    writer.close()
    file.flush()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        digest = _digest(data)
    file.seek(0)
    file.write(digest)
    file.flush()


def to_batch(chunk: Chunk) -> "pyarrow.RecordBatch":
    """The batch with the places first."""
    import pyarrow

    text = [
        cells if isinstance(cells, pyarrow.Array) else pyarrow.array(cells, pyarrow.string())
        for cells in chunk.columns.values()
    ]
    arrays = [pyarrow.array(chunk.places, pyarrow.int64()), *text]
    return pyarrow.RecordBatch.from_arrays(arrays, [PLACE, *chunk.columns])


def _map(file: BinaryIO) -> "pyarrow.Table":
    """The checked table of a file. Pages that were read for it are given back at once."""
    import pyarrow

    if os.fstat(file.fileno()).st_size <= HEADER_BYTES:
        raise DataError("truncated")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if _digest(data) != data[:HEADER_BYTES]:
        raise DataError("the digest differs")
    try:
        reader = pyarrow.ipc.open_file(pyarrow.py_buffer(data)[HEADER_BYTES:])
        types = [pyarrow.int64(), *[pyarrow.string()] * (len(reader.schema) - 1)]
        if reader.schema.types != types or reader.schema.names[0] != PLACE:
            raise DataError("other columns than those of rows")
        batches = []
        for number in range(reader.num_record_batches):
            batches.append(reader.get_batch(number))
            batches[-1].validate(full=True)
            data.madvise(mmap.MADV_DONTNEED)
        return pyarrow.Table.from_batches(batches, reader.schema)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(str(error).splitlines()[0]) from None


def _digest(data: mmap.mmap) -> bytes:
    digest = xxhash.xxh3_128()
    for start in range(HEADER_BYTES, len(data), BLOCK):
        digest.update(data[start : start + BLOCK])
        data.madvise(mmap.MADV_DONTNEED)
    return f"mlxlab rows {digest.hexdigest()}".encode().ljust(HEADER_BYTES)
