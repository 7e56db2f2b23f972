"""Migrates stores, one after the other, each as a whole or not at all."""

import logging
import sqlite3
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlxlab.errors import ServiceUnavailableError, UserError, WriteError
from mlxlab.tracking.mlflow import queue, sqlite
from mlxlab.tracking.mlflow.address import Address, sqlite_uri
from mlxlab.tracking.mlflow.client import prepare
from mlxlab.tracking.mlflow.errors import StoreUnavailableError
from mlxlab.tracking.mlflow.migration.artifacts import copy_artifacts, find_folder
from mlxlab.tracking.mlflow.migration.convert import convert
from mlxlab.tracking.mlflow.migration.merge import merge
from mlxlab.tracking.mlflow.migration.sources import Source


@dataclass
class Result:
    """What was moved of one store."""

    store: Path
    rows: dict[str, int] = field(default_factory=dict)  # table -> new rows
    files: int = 0  # of artifacts, copied now
    skipped: list[str] = field(default_factory=list)  # a line for each thing that cannot be read
    left_out: dict[str, int] = field(default_factory=dict)  # table that is not moved -> its rows
    error: UserError | None = None  # why nothing was moved


def migrate(
    sources: list[Source], address: Address, *, dry_run: bool, backup: bool
) -> tuple[list[Result], Path | None]:
    """Returns a result per store, and the backup of the central one; an error of a store does not stop the others.

    Args:
        address: the central store, an SQLite file with a local folder for artifacts.
        dry_run: works on a copy of the central store, and copies no artifacts.
        backup: copies the central store before the first change, if it holds runs.

    Raises:
        ServiceUnavailableError: the central store cannot be used, or another process is writing it.
        WriteError: it cannot be written, on a full disk for example.
    """
    prepare(address)
    import mlflow  # the import sets log levels, so ours come after it

    logging.getLogger(mlflow.__name__).setLevel(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            central = address
            if dry_run:
                central = _copy_central(address, folder)
            else:
                stack.enter_context(queue.only_writer(address))
            sqlite.ensure_database(central)
            copy = _back_up(central) if backup and not dry_run else None
            results = [_migrate_store(source, central, dry_run) for source in sources]
            if copy and not any(result.rows for result in results):
                copy.unlink()
                copy = None
            return results, copy
    except StoreUnavailableError as error:
        raise ServiceUnavailableError(str(error)) from None
    except OSError as error:
        raise WriteError(f"{address.shown}: {error.strerror or error}: {error.filename}") from None


def _migrate_store(source: Source, central: Address, dry_run: bool) -> Result:
    result = Result(source.path)
    try:
        with tempfile.TemporaryDirectory() as folder:
            converted = convert(source, Path(folder))
            result.skipped, result.left_out = converted.skipped, converted.left_out
            _merge(source, central, converted.database, dry_run, result)
    except WriteError:
        raise
    except UserError as error:
        result.error = error
    return result


def _merge(
    source: Source, central: Address, converted: Path, dry_run: bool, result: Result
) -> None:
    """Merges a converted store and copies its artifacts, in one transaction."""
    assert central.database is not None
    database = sqlite3.connect(central.database, timeout=sqlite.BUSY_SECONDS, isolation_level=None)
    roots = [source.path, source.path.parent, source.root]
    try:
        with closing(database):
            for pragma in ("foreign_keys = on", "trusted_schema = off", "synchronous = full"):
                database.execute(f"pragma {pragma}")
            database.execute("attach ? as source", (str(converted),))
            with database:
                database.execute("begin immediate")
                database.execute("pragma defer_foreign_keys = on")
                rows, moves = merge(database, source.path, central)
                for move in moves:
                    if folder := find_folder(move, roots):
                        result.files += copy_artifacts(folder, move.target, dry_run=dry_run)
    except sqlite3.Error as error:
        raise ServiceUnavailableError(
            f"{central.shown}: {source.path} cannot be merged ({error})"
        ) from None
    result.rows = rows


def _copy_central(address: Address, folder: Path) -> Address:
    """The address of a copy of the central store, if there is one."""
    path = folder / "central.db"
    assert address.database is not None
    if address.database.exists():
        _copy_database(address.database, path)
    return replace(address, uri=sqlite_uri(path))


def _back_up(central: Address) -> Path | None:
    """A copy of the central store next to it; None if that holds no runs."""
    assert central.database is not None
    path = Path(f"{central.database}.backup-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        with closing(sqlite3.connect(central.database)) as database:
            (count,) = database.execute("select count(*) from runs").fetchone()
        if count:
            _copy_database(central.database, path)
    except sqlite3.Error as error:
        raise WriteError(f"{path}: {error}") from None
    return path if count else None


def _copy_database(path: Path, copy: Path) -> None:
    with ExitStack() as stack:
        uri = f"{path.as_uri()}?mode=ro"
        database = stack.enter_context(closing(sqlite3.connect(uri, uri=True)))
        target = stack.enter_context(closing(sqlite3.connect(copy)))
        database.backup(target)
