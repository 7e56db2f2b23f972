"""Migrates stores, one after the other, each as a whole or not at all."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlxlab.errors import ServiceUnavailableError, UserError, WriteError
from mlxlab.files.atomic import temporary_name
from mlxlab.tracking.mlflow import queue, sqlite
from mlxlab.tracking.mlflow.address import Address, sqlite_uri
from mlxlab.tracking.mlflow.errors import StoreUnavailableError
from mlxlab.tracking.mlflow.migration.artifacts import CopyCounts, Move, copy_artifacts, find_folder
from mlxlab.tracking.mlflow.migration.merge import Merged, merge
from mlxlab.tracking.mlflow.migration.sources import Source
from mlxlab.tracking.mlflow.migration.staging import stage
from mlxlab.tracking.mlflow.migration.tables import Staged


@dataclass
class Result:
    """What was moved of one store."""

    source: Source
    merged: Merged = field(default_factory=Merged)
    files: CopyCounts = field(default_factory=CopyCounts)
    without_artifacts: int = 0  # runs and models
    skipped: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    error: UserError | None = None  # why nothing was moved
    backup: Path | None = None  # of the central store, made before


def migrate(
    sources: list[Source], address: Address, *, dry_run: bool, backup: bool
) -> Iterator[Result]:
    """Yields a result per store; an error of one does not stop the others.

    Args:
        address: the central store, an SQLite file with a local folder for artifacts.
        dry_run: works on a copy of the central store, and copies no artifacts.
        backup: copies the central store before the first change, if it holds runs.

    Raises:
        ServiceUnavailableError: the central store cannot be used, or another process is writing it.
        WriteError: it cannot be written, on a full disk for example.
    """
    from mlxlab.tracking.mlflow.client import prepare

    prepare(address)
    try:
        with (
            tempfile.TemporaryDirectory() as temporary,
            nullcontext() if dry_run else queue.only_writer(address),
        ):
            central = _copy_central(address, Path(temporary)) if dry_run else address
            sqlite.ensure_database(central)
            empty = sqlite.empty_database(address)
            for number, source in enumerate(sources):
                folder = Path(temporary) / str(number)
                folder.mkdir()
                result = _migrate_one(source, central, empty, folder, dry_run, backup)
                backup = backup and result.backup is None
                shutil.rmtree(folder)
                yield result
    except StoreUnavailableError as error:
        raise ServiceUnavailableError(str(error)) from None
    except OSError as error:
        raise WriteError(f"{address.shown}: {error.strerror or error}: {error.filename}") from None


def _migrate_one(
    source: Source, central: Address, empty: Path, folder: Path, dry_run: bool, backup: bool
) -> Result:
    result = Result(source)
    try:
        staged = stage(source, empty, folder)
        result.skipped, result.left_out = staged.skipped, staged.left_out
        with _open(central, staged) as database:
            plan = _merge(database, staged, central, commit=False)
            result.files = _copy_all(plan.moves, source.roots, result, dry_run)
            if plan.has_changes and backup and not dry_run:
                result.backup = _back_up(database, central)
            result.merged = _merge(database, staged, central, commit=True)
            if result.merged.moves != plan.moves:
                raise ServiceUnavailableError(f"{central.shown}: changed meanwhile; run this again")
    except WriteError:
        raise
    except UserError as error:
        result.error = error
    return result


def _merge(
    database: sqlite3.Connection, staged: Staged, central: Address, *, commit: bool
) -> Merged:
    try:
        database.execute("begin immediate")
        try:
            merged = merge(database, staged, central)
            database.execute("commit" if commit else "rollback")
        except BaseException:
            database.execute("rollback")
            raise
    except sqlite3.Error as error:
        raise ServiceUnavailableError(
            f"{central.shown}: {staged.source.path} cannot be merged ({error})"
        ) from None
    return merged


def _copy_all(moves: list[Move], roots: list[Path], result: Result, dry_run: bool) -> CopyCounts:
    counts = CopyCounts()
    for move in moves:
        folder = find_folder(move, roots)
        if folder is None:
            result.without_artifacts += 1
            continue
        copied = copy_artifacts(folder, move.target, dry_run=dry_run)
        counts.files += copied.files
        counts.unchanged += copied.unchanged
        counts.links += copied.links
    if counts.links:
        result.skipped.append(f"{counts.links} artifacts are symbolic links, pipes or devices")
    return counts


@contextmanager
def _open(central: Address, staged: Staged) -> Iterator[sqlite3.Connection]:
    """The central database, with the staged one attached as `source`."""
    assert central.database is not None
    database = sqlite3.connect(central.database, isolation_level=None, timeout=sqlite.BUSY_SECONDS)
    with closing(database):
        for pragma in ("foreign_keys = on", "trusted_schema = off", "synchronous = full"):
            database.execute(f"pragma {pragma}")
        database.execute("attach ? as source", (str(staged.database),))
        yield database


def _copy_central(address: Address, folder: Path) -> Address:
    """The address of a copy of the central store, if there is one."""
    path = folder / "central.db"
    assert address.database is not None
    if address.database.exists():
        with closing(sqlite3.connect(f"{address.database.as_uri()}?mode=ro", uri=True)) as database:
            _copy_database(database, path)
    return replace(address, uri=sqlite_uri(path))


def _back_up(database: sqlite3.Connection, central: Address) -> Path | None:
    """A copy of the central store next to it; None if that holds no runs."""
    assert central.database is not None
    if database.execute("select count(*) from main.runs").fetchone()[0] == 0:
        return None
    path = Path(f"{central.database}.backup-{time.strftime('%Y%m%d-%H%M%S')}")
    temporary = temporary_name(path)
    try:
        _copy_database(database, temporary)
        temporary.replace(path)
    except sqlite3.Error as error:
        raise WriteError(f"{path}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _copy_database(database: sqlite3.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path)) as target:
        database.backup(target)
