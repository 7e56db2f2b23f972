"""Reads an SQLite store of any MLflow release out of a copy of its file: opening it with MLflow would upgrade it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from mlxlab.errors import DataError
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking.mlflow.migration.tables import TABLES, Staged, columns

_ATTEMPTS = 3
_REQUIRED = {
    "experiments": {"experiment_id", "name"},
    "runs": {"run_uuid", "experiment_id"},
    "metrics": {"key"},
}
_FOREIGN = """
select type, name from sqlite_master
where type = 'view' or sql like 'create virtual%'
"""
_NOT_MOVED = ("alembic_version", "workspaces", "latest_metrics")


def copy_rows(database: sqlite3.Connection, staged: Staged, folder: Path) -> None:
    """Fills the staged database with the rows of the source; raises DataError and sqlite3.Error.

    Later schemas only added columns, so that those that both have are what the older one knew.
    """
    copy = folder / "copy.db"
    _copy_files(staged.source.path, copy)
    _check(copy)
    database.execute("attach ? as source", (str(copy),))
    for table, required in _REQUIRED.items():
        if missing := required - set(columns(database, "source", table)):
            raise DataError(f"not an MLflow store: {table} has no {sorted(missing)[0]}")
    for table in TABLES:
        ours, theirs = columns(database, "main", table), columns(database, "source", table)
        if common := ", ".join(name for name in ours if name in theirs):
            database.execute(
                f"insert into main.{table} ({common}) select {common} from source.{table}"
            )
    query = (
        "select name from source.sqlite_master where type = 'table' and name not like 'sqlite_%'"
    )
    for (table,) in database.execute(query).fetchall():
        quoted = '"' + table.replace('"', '""') + '"'
        (count,) = database.execute(f"select count(*) from source.{quoted}").fetchone()
        if count and table not in (*TABLES, *_NOT_MOVED):
            staged.left_out[table] = count
    database.execute("detach source")


def _copy_files(path: Path, copy: Path) -> None:
    """Copies a database that nobody writes meanwhile, with its log: SQLite would create files next to the original."""
    for _ in range(_ATTEMPTS):
        before = _stamps(path)
        for suffix in before:
            with (
                open_regular(Path(f"{path}{suffix}")) as file,
                Path(f"{copy}{suffix}").open("wb") as target,
            ):
                shutil.copyfileobj(file, target, 2**20)
        if _stamps(path) == before:
            return
    raise DataError("a program is writing it; end that, then run this again")


def _stamps(path: Path) -> dict[str, tuple[int, int]]:
    files = {suffix: Path(f"{path}{suffix}") for suffix in ("", "-wal", "-journal")}
    existing = {suffix: file.stat() for suffix, file in files.items() if file.exists()}
    return {suffix: (status.st_size, status.st_mtime_ns) for suffix, status in existing.items()}


def _check(copy: Path) -> None:
    """Raises DataError unless the copy is intact, of a known MLflow, and holds ordinary tables only."""
    with closing(sqlite3.connect(copy)) as database:
        database.execute("pragma trusted_schema = off")
        (state,) = database.execute("pragma quick_check(1)").fetchone()
        if state != "ok":
            raise DataError(f"damaged ({state})")
        for kind, name in database.execute(_FOREIGN):
            raise DataError(f"not an MLflow store: it has the {kind} {name[:40]}")
        versions = [
            str(row[0]) for row in database.execute("select version_num from alembic_version")
        ]
    if len(versions) != 1:
        raise DataError("not an MLflow store: it names no schema")
    if versions[0] not in _known_versions():
        raise DataError(
            f"schema {versions[0][:40]} is of a newer MLflow; pip install -U mlflow-skinny"
        )


def _known_versions() -> set[str]:
    """The schemas that the installed MLflow can upgrade from: its migrations are named by them."""
    from mlflow.store import db_migrations

    folder = Path(next(iter(db_migrations.__path__))) / "versions"
    return {file.name.partition("_")[0] for file in folder.glob("*.py")}
