"""Per-example losses of a run: `example_losses/part-<first step>-<last step>.parquet`, and `rows.spill`.

Rows are first appended to the spill: a line of JSON that names the columns, then fixed-size records, so a killed
process loses nothing that was written. A full spill is rewritten as a Parquet part. Readers understand both.

Columns: id, step, time (seconds since 1970), targets (total weight), sum and mean of the loss over the targets, then
kl, cross_entropy and the other components of the loss, each per target; NaN where a loss lacks it.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mlxlab.errors import DataError, InputNotFoundError

FOLDER, SPILL = "example_losses", "rows.spill"
KEY_COLUMNS = {"id": "<i8", "step": "<i8", "time": "<f8"}  # all other columns are float32
VALUES = ("targets", "sum", "mean", "kl", "cross_entropy")  # always present
_PART = re.compile(r"part-(\d+)-(\d+)\.parquet")

Columns = dict[str, np.ndarray]  # all of the same length, (N,)


def record(names: Iterable[str]) -> np.dtype:
    """The dtype of a row with these value columns."""
    return np.dtype([*KEY_COLUMNS.items(), *((name, "<f4") for name in names)])


def read(source: Path) -> Columns:
    """The rows of a Parquet file, a folder of parts or a run folder: the latest step of each id, sorted by id.

    Raises:
        InputNotFoundError: no such file, or no rows in the folder.
        DataError: a file is not Parquet, or lacks the id, step, time or loss.
    """
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    if folder.is_dir():
        tables = [_read_part(path) for path, _, _ in part_files(folder)] + list(_read_spill(folder / SPILL))
        if not tables:
            raise InputNotFoundError(
                f"{source}: no per-example losses; callbacks.example_losses.every_steps=1 writes them"
            )
    elif source.is_file():
        tables = [_read_part(source)]
    else:
        raise InputNotFoundError(f"{source}: not found; expected a run folder or a Parquet file of per-example losses")
    return latest(join(tables), "step", "time")


def merge(sources: Iterable[Path]) -> Columns:
    """The rows of several runs or files: the latest time of each id, sorted by id."""
    return latest(join([read(source) for source in sources]), "time", "step")


def latest(rows: Columns, first: str, then: str) -> Columns:
    """The row of each id with the largest `first`, then the largest `then`, then the last one; sorted by id."""
    order = np.lexsort((rows[then], rows[first], rows["id"]))  # stable; the last key is the primary one
    ids = rows["id"][order]
    last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    return {name: column[order[last]] for name, column in rows.items()}


def join(tables: list[Columns]) -> Columns:
    """Concatenates tables; a column that a table lacks is filled with NaN."""
    names = list(dict.fromkeys(name for table in tables for name in table))
    return {name: np.concatenate([_column(table, name) for table in tables]) for name in names}


def part_files(folder: Path) -> list[tuple[Path, int, int]]:
    """The parts in a folder, oldest first, each with its first and last step."""
    matches = ((path, _PART.fullmatch(path.name)) for path in folder.glob("part-*.parquet"))
    steps = [(path, int(match[1]), int(match[2])) for path, match in matches if match]
    return sorted(steps, key=lambda part: part[1:])


def write(rows: Columns, path: Path) -> None:
    """Writes a Parquet file atomically. NaN becomes null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(column, from_pandas=name not in KEY_COLUMNS) for name, column in rows.items()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_part(rows: Columns, folder: Path) -> None:
    """Writes rows as the part of their steps; does nothing without rows."""
    if len(steps := rows["step"]):
        write(rows, folder / f"part-{steps.min():09d}-{steps.max():09d}.parquet")


def settle(folder: Path, step: int = 2**62) -> None:
    """Converts a remaining spill to a part, and drops all rows after `step`."""
    for path, first, last in part_files(folder):
        if last > step:
            if first <= step:
                write_part(_until(step, _read_part(path)), folder)
            path.unlink()
    for rows in _read_spill(folder / SPILL):
        write_part(_until(step, rows), folder)
    (folder / SPILL).unlink(missing_ok=True)


def _until(step: int, rows: Columns) -> Columns:
    return {name: column[rows["step"] <= step] for name, column in rows.items()}


def _read_part(path: Path) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path, memory_map=False).read()
        rows = {name: table[name].to_numpy() for name in table.column_names}
        missing = [name for name in ("id", "step", "time", "sum", "mean") if name not in rows]
        if missing:
            raise DataError(f"{path}: no column {', '.join(missing)}; it has {', '.join(rows)[:200]}")
        return {name: column.astype(KEY_COLUMNS.get(name, "<f4")) for name, column in rows.items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: cannot be read as per-example losses: {reason}") from None


def _read_spill(path: Path) -> Iterator[Columns]:
    """The complete rows of a spill without a truncated last one; nothing without a spill."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        kind = record(json.loads(head))
    except (OSError, ValueError, TypeError):
        return
    rows = np.frombuffer(body, kind, count=len(body) // kind.itemsize)
    if len(rows):
        yield {name: rows[name].copy() for name in kind.names or ()}


def _column(table: Columns, name: str) -> np.ndarray:
    return table[name] if name in table else np.full(len(table["id"]), np.nan, np.float32)
