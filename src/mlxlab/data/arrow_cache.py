"""Tables in Arrow files that can be made again: larger than memory, memory-mapped, checked when they are opened."""

import mmap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from mlxlab.data.cache import HEADER_BYTES, cached
from mlxlab.errors import DataError

Batches = Callable[[], Iterable[pa.RecordBatch]]
Check = Callable[[pa.RecordBatch], None]


def cached_table(
    path: Path,
    build: Batches,
    check: Check,
    check_table: Callable[[pa.Table], object] = lambda table: None,
) -> tuple[pa.Table, str]:
    """A memory-mapped table as `cached`. It has the metadata of its last batch.

    Args:
        build: yields the record batches, at least one, a few thousand rows each.
        check: raises DataError unless `build` could have yielded the batch.
        check_table: the same for the whole; it should read little of it.
    """

    def write(file: BinaryIO) -> None:
        writer = None
        for batch in build():
            if writer is None:
                writer = pa.ipc.new_file(file, batch.schema)
            writer.write_batch(batch, custom_metadata=batch.schema.metadata)
        assert writer is not None, "a source without rows is refused before"
        writer.close()

    def read(data: mmap.mmap) -> pa.Table:
        batches = []
        metadata = None
        try:
            reader = pa.ipc.open_file(pa.py_buffer(data)[HEADER_BYTES:])
            for number in range(reader.num_record_batches):
                batch, metadata = reader.get_batch_with_custom_metadata(number)
                batch.validate(full=True)
                check(batch)
                batches.append(batch)
                data.madvise(mmap.MADV_DONTNEED)
        except (pa.ArrowException, OSError) as error:
            raise DataError(str(error).splitlines()[0]) from None
        table = pa.Table.from_batches(batches, reader.schema).replace_schema_metadata(metadata)
        check_table(table)
        return table

    return cached(path, write, read)
