"""Losses by example, as files of a run: `example_losses/part-<first step>-<last step>.parquet`, and `rows.spill`.

The spill takes every row the moment it is known: a line of JSON that names the columns, then records of fixed length,
so a killed process loses nothing that was written. A part is what a spill becomes. Readers understand both.

Columns: id, step, time (seconds since 1970), targets (their weight), sum and mean of the loss over the targets, then
kl, cross_entropy and whatever other parts the loss has, each per target; NaN where there is none.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mlxlab.errors import DataError, InputNotFoundError

FOLDER, SPILL = "example_losses", "rows.spill"
WHOLE = {"id": "<i8", "step": "<i8", "time": "<f8"}  # all other columns are float32
VALUES = ("targets", "sum", "mean", "kl", "cross_entropy")  # always there
_PART = re.compile(r"part-(\d+)-(\d+)\.parquet")

Columns = dict[str, np.ndarray]  # all of the same length, (N,)


def record(names: Iterable[str]) -> np.dtype:
    """The type of one row with these value columns."""
    return np.dtype([*WHOLE.items(), *((name, "<f4") for name in names)])


def read(source: Path) -> Columns:
    """The rows of a Parquet file, a folder of parts or a run folder; of each id the one of the latest step, by id.

    Raises:
        InputNotFoundError: there is no such file, or no part in the folder.
        DataError: a file is no Parquet, or has no id, step, time or loss.
    """
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    if folder.is_dir():
        tables = [_read_part(path) for path, _, _ in parts(folder)] + list(_read_spill(folder / SPILL))
        if not tables:
            raise InputNotFoundError(
                f"{source}: no losses by example in it; callbacks.example_losses.every_steps=1 writes them"
            )
    elif source.is_file():
        tables = [_read_part(source)]
    else:
        raise InputNotFoundError(f"{source}: not there; expected a run folder or a Parquet file of losses by example")
    return latest(join(tables), "step", "time")


def merge(sources: Iterable[Path]) -> Columns:
    """The rows of several runs or files; of each id the latest by the clock."""
    return latest(join([read(source) for source in sources]), "time", "step")


def latest(rows: Columns, first: str, then: str) -> Columns:
    """Of each id the row with the greatest `first`, then the greatest `then`, then the last one; sorted by id."""
    order = np.lexsort((rows[then], rows[first], rows["id"]))  # stable, and the last key counts most
    ids = rows["id"][order]
    last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    return {name: column[order[last]] for name, column in rows.items()}


def join(tables: list[Columns]) -> Columns:
    """One table under the other; a column that one of them lacks is NaN there."""
    names = list(dict.fromkeys(name for table in tables for name in table))
    return {name: np.concatenate([_column(table, name) for table in tables]) for name in names}


def parts(folder: Path) -> list[tuple[Path, int, int]]:
    """The parts in a folder, oldest first, each with its first and last step."""
    found = ((path, _PART.fullmatch(path.name)) for path in folder.glob("part-*.parquet"))
    known = [(path, int(match[1]), int(match[2])) for path, match in found if match]
    return sorted(known, key=lambda part: part[1:])


def write(rows: Columns, path: Path) -> None:
    """Writes a Parquet file: whole or not at all. NaN becomes null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(column, from_pandas=name not in WHOLE) for name, column in rows.items()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_part(rows: Columns, folder: Path) -> None:
    """Writes rows as the part of their steps; nothing if there are none."""
    if len(steps := rows["step"]):
        write(rows, folder / f"part-{steps.min():09d}-{steps.max():09d}.parquet")


def settle(folder: Path, step: int = 2**62) -> None:
    """Makes a part of a spill that was left behind, and drops every row after `step`."""
    for path, first, last in parts(folder):
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
        return {name: column.astype(WHOLE.get(name, "<f4")) for name, column in rows.items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: cannot be read as losses by example: {reason}") from None


def _read_spill(path: Path) -> Iterator[Columns]:
    """The complete rows of a spill; a torn last one is left out, and nothing comes where there is none."""
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
