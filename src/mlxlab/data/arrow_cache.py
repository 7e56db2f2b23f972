"""Tables in Arrow files that can be made again: larger than memory, memory-mapped, checked when they are opened.

A file is an Arrow IPC file and 16 bytes of xxh3 over it. Its name must hold the key of its content.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from mlxlab.errors import DataError
from mlxlab.files.atomic import temporary_name

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST_BYTES = 16
BLOCK = 2**22

Batches = Callable[[], "Iterator[pa.RecordBatch]"]
log = logging.getLogger(__name__)


def cached_table(
    path: Path, schema: "pa.Schema", build: Batches, check: "Callable[[pa.Table], None]"
) -> "tuple[pa.Table, str]":
    """The table of a cache file, or a new one that is cached; and `hit`, `miss` or `corrupt, built again`.

    Concurrent processes may do this: each writes a file of its own and renames it. A damaged file is built again with
    a warning; a folder that cannot be written costs a warning and memory, never the run.

    Args:
        build: yields the record batches, a few thousand rows each.
        check: raises DataError unless `build` could have made the table.
    """
    outcome = "miss"
    try:
        table = _open(path, schema)
        check(table)
        return table, "hit"
    except FileNotFoundError:
        pass
    except (DataError, OSError) as error:
        log.warning("the cache %s is corrupt (%s); it is built again", path, error)
        outcome = "corrupt, built again"
    try:
        _write(path, schema, build)
        return _open(path, schema), outcome
    except OSError as error:
        import pyarrow as pa

        log.warning("the cache %s could not be written (%s)", path, error)
        return pa.Table.from_batches(build(), schema), f"{outcome}, not cached"


def _open(path: Path, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    if not path.is_file():
        raise FileNotFoundError(path)
    with pa.memory_map(str(path)) as file:
        data = file.read_buffer()
    body = data.slice(0, max(data.size - DIGEST_BYTES, 0))
    digest = xxhash.xxh3_128(path.name.encode())
    for start in range(0, body.size, BLOCK):
        digest.update(body.slice(start, min(BLOCK, body.size - start)))
    if data.slice(body.size).to_pybytes() != digest.digest():
        raise DataError("the digest differs")
    try:
        table = pa.ipc.open_file(body).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(error).partition("\n")[0]) from None
    if table.schema != schema:
        raise DataError(f"expected columns {schema.names}, got {table.schema.names}")
    return table


def _write(path: Path, schema: "pa.Schema", build: Batches) -> None:
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in build():
                writer.write_batch(batch)
        digest = xxhash.xxh3_128(path.name.encode())
        with temporary.open("r+b") as written:
            while block := written.read(BLOCK):
                digest.update(block)
            written.write(digest.digest())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
