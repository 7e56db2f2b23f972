"""Tables in Arrow files that can be made again: larger than memory, memory-mapped, checked when they are opened.

A file is 64 bytes, the digest and the size of the rest, then an Arrow IPC file. Its name must hold the
key of its content.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import xxhash

from mlxlab.data.cache import warn_of_damage, warn_of_unwritten
from mlxlab.data.sources.files import read_from
from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import remove_leftovers, temporary_name
from mlxlab.files.untrusted import open_regular

if TYPE_CHECKING:
    import pyarrow

HEADER_BYTES = 64
BLOCK = 2**24
MAGIC = b"ARROW1"  # at both ends of an Arrow file

Batches: TypeAlias = "Callable[[], Iterable[pyarrow.RecordBatch]]"
Check: TypeAlias = "Callable[[pyarrow.RecordBatch], None]"


def cached_table(
    path: Path,
    build: Batches,
    check: Check,
    check_table: "Callable[[pyarrow.Table], object]" = lambda table: None,
) -> "tuple[pyarrow.Table, str]":
    """The memory-mapped table of a cache file, or a new one; and `hit`, `miss` or `corrupt, built again`.

    Concurrent processes may do this: each writes a file of its own and renames it. A damaged file is built again with
    a warning; where none can be written, a temporary file takes its place. The table has the metadata of its last
    batch.

    Args:
        build: yields the record batches, at least one, a few thousand rows each.
        check: raises DataError unless `build` could have yielded the batch: a right digest proves no origin.
        check_table: the same for the whole; it should read little of it.

    Raises:
        InputNotFoundError: `build` raised OSError.
        WriteError: there is no space for a temporary file either.
    """
    outcome = "miss"
    try:
        with open_regular(path) as file:
            table = _map(file, path.name, check)
        check_table(table)
        return table, "hit"
    except InputNotFoundError:
        pass
    except DataError as error:
        warn_of_damage(path, error)
        outcome = "corrupt, built again"
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with temporary.open("x+b") as file:
            table = _build(file, path.name, build, check)
        temporary.replace(path)
        return table, outcome
    except OSError as error:
        warn_of_unwritten(path, error)
    finally:
        with suppress(OSError):
            temporary.unlink()
    try:
        with tempfile.TemporaryFile() as file:
            return _build(file, path.name, build, check), f"{outcome}, not cached"
    except OSError as error:
        folder = tempfile.gettempdir()
        raise WriteError(f"{folder}: no temporary file could be written ({error})") from None


def _build(file: BinaryIO, name: str, build: Batches, check: Check) -> "pyarrow.Table":
    """Writes a new file, and maps it."""
    import pyarrow

    writer = None
    file.write(bytes(HEADER_BYTES))
    for batch in read_from(f"the source of {name}", build()):
        if writer is None:
            writer = pyarrow.ipc.new_file(file, batch.schema)
        writer.write_batch(batch, custom_metadata=batch.schema.metadata)
    assert writer is not None, "a source without rows is refused before"
    writer.close()
    file.flush()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        digest = _digest(data, name)
    file.seek(0)
    file.write(digest)
    file.flush()
    return _map(file, name, check)


def _map(file: BinaryIO, name: str, check: Check) -> "pyarrow.Table":
    """The checked table of a file. Pages that were read for it are given back at once."""
    import pyarrow

    size = os.fstat(file.fileno()).st_size
    if size <= HEADER_BYTES:
        raise DataError(f"{size} bytes")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = data[:HEADER_BYTES]
    # The ends are compared first: a file of another size or format is not read.
    has_size = header.rstrip(b"\0").endswith(b" %d" % size)
    if not has_size or data[-len(MAGIC) :] != MAGIC or _digest(data, name) != header:
        raise DataError("its size, format or digest differs")
    try:
        reader = pyarrow.ipc.open_file(pyarrow.py_buffer(data)[HEADER_BYTES:])
        batches, metadata = [], None
        for number in range(reader.num_record_batches):
            batch, metadata = reader.get_batch_with_custom_metadata(number)
            batch.validate(full=True)
            check(batch)
            batches.append(batch)
            data.madvise(mmap.MADV_DONTNEED)
        return pyarrow.Table.from_batches(batches, reader.schema).replace_schema_metadata(metadata)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(str(error).splitlines()[0]) from None


def _digest(data: mmap.mmap, name: str) -> bytes:
    digest = xxhash.xxh3_128(name.encode())
    for start in range(HEADER_BYTES, len(data), BLOCK):
        digest.update(data[start : start + BLOCK])
        data.madvise(mmap.MADV_DONTNEED)
    return f"mlxlab {digest.hexdigest()} {len(data)}".encode().ljust(HEADER_BYTES, b"\0")
