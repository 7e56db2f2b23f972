"""Converts a copy of a store to the schema of the installed MLflow, by MLflow's own commands.

A store may come from anyone: what MLflow is given is checked before, and the rows that it makes of it after.
"""

import io
import re
import shutil
import sqlite3
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import DataError
from mlxlab.files.untrusted import open_regular, read_text
from mlxlab.tracking.mlflow.address import sqlite_uri
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.mlflow.migration.merge import TABLES
from mlxlab.tracking.mlflow.migration.sources import Source

if TYPE_CHECKING:
    from click import Command

MAX_TEXT = 2**20  # characters of one value
MAX_METRIC = 2**28  # bytes of the file of a metric: about 7 million points
META = "meta.yaml"
_NOT_MOVED = ("alembic_version", "workspaces", "latest_metrics")
_FOREIGN = """
select type, name from sqlite_master
where type = 'view' or sql like 'create virtual%'
or type = 'trigger' and name != 'prevent_secrets_aad_mutation'
"""
_TYPES = {"INTEGER": "'integer'", "BIGINT": "'integer'", "FLOAT": "'real'", "BOOLEAN": "'integer'"}
# Ids become the names of folders.
_IDS = {
    "runs": "length(run_uuid) != 32 or run_uuid glob '*[^0-9a-f]*'",
    "logged_models": "length(model_id) != 34 or model_id not glob 'm-*'"
    " or substr(model_id, 3) glob '*[^0-9a-f]*'",
}
_point = re.compile(r"-?[0-9]{1,18} [-+.\w]+( -?[0-9]{1,18}.*)?")


@dataclass
class Converted:
    """A store as a database of the installed MLflow."""

    database: Path
    skipped: list[str] = field(default_factory=list)  # a line for each thing that cannot be read
    left_out: dict[str, int] = field(default_factory=dict)  # table that is not moved -> its rows


def convert(source: Source, folder: Path) -> Converted:
    """Converts a store into a database in `folder`.

    Raises:
        DataError: it is damaged, is not a store, or is of a newer MLflow.
    """
    import mlflow.db
    from mlflow.store.fs2db.cli import migrate_filestore

    converted = Converted(folder / "copy.db")
    uri = sqlite_uri(converted.database)
    try:
        if source.is_database:
            _copy_database(source.path, converted.database)
            _check_schema(converted.database)
            _run(mlflow.db.upgrade, uri)
        else:
            _copy_metadata(source.path, folder / "mlruns", converted.skipped)
            args = ("--source", str(folder), "--target", uri, "--no-progress")
            _run(migrate_filestore, *args)
        _check_rows(converted)
    except (sqlite3.Error, OSError, DataError) as error:
        raise DataError(f"{source.path}: cannot be read as an MLflow store ({error})") from None
    return converted


def _run(command: "Command", *args: str) -> None:
    """Runs a command of MLflow's command line, without its output; raises DataError."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            command.main(args, standalone_mode=False)
    except Exception as error:  # of MLflow or of a database: it has no common base
        raise DataError(one_line(error)) from error


def _copy_database(path: Path, copy: Path) -> None:
    """Copies a database that nobody writes meanwhile, with its log: SQLite would create files next to the original."""
    before = _stamps(path)
    for suffix in before:
        original, target = Path(f"{path}{suffix}"), Path(f"{copy}{suffix}")
        with open_regular(original) as file, target.open("wb") as copied:
            shutil.copyfileobj(file, copied, 2**20)
    if _stamps(path) != before:
        raise DataError("a program is writing it; end that, then run this again")


def _stamps(path: Path) -> dict[str, tuple[int, int]]:
    stamps = {}
    for suffix in ("", "-wal", "-journal"):
        file = Path(f"{path}{suffix}")
        if file.exists():
            status = file.stat()
            stamps[suffix] = (status.st_size, status.st_mtime_ns)
    return stamps


def _check_schema(copy: Path) -> None:
    """Raises DataError unless the database is intact and names a schema; views and triggers would run code."""
    with closing(sqlite3.connect(copy)) as database:
        database.execute("pragma trusted_schema = off")
        (state,) = database.execute("pragma quick_check(1)").fetchone()
        if state != "ok":
            raise DataError(f"damaged: {state}")
        for kind, name in database.execute(_FOREIGN):
            raise DataError(f"it has the {kind} {name[:40]}")
        if database.execute("select count(*) from alembic_version").fetchone() != (1,):
            raise DataError("it names no schema")


def _copy_metadata(root: Path, target: Path, skipped: list[str]) -> None:
    """Copies the files of a file store that MLflow can read, without artifacts and symbolic links."""

    def ignore(folder: str, names: list[str]) -> list[str]:
        paths = {name: Path(folder, name) for name in names}
        links = [name for name, path in paths.items() if path.is_symlink()]
        return [*links, "artifacts"] if META in names else links

    def copy(source: str, destination: str) -> None:
        path = Path(source)
        try:
            if path.name == META:
                text = read_text(path, max_bytes=MAX_TEXT)
                _check_yaml(source, text)
            elif "metrics" in path.relative_to(root).parts:
                text = _points(source, read_text(path, max_bytes=MAX_METRIC), skipped)
            else:
                text = read_text(path, max_bytes=MAX_TEXT)
        except DataError as error:
            skipped.append(str(error))
        else:
            Path(destination).write_text(text, encoding="utf-8")

    shutil.copytree(root, target, ignore=ignore, copy_function=copy)


def _check_yaml(path: str, text: str) -> None:
    """Raises DataError if a file is not YAML, or has aliases, which could unfold to any size."""
    import yaml

    try:
        has_aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    if has_aliases:
        raise DataError(f"{path}: aliases are not read")


def _points(path: str, text: str, skipped: list[str]) -> str:
    """The lines of a metric, each once: MLflow's command takes neither a torn line nor a second one like it."""
    lines: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if _point.fullmatch(line):
            lines[line] = None
        else:
            skipped.append(f"{path}:{number}: expected `time value step`")
    return "\n".join(lines)


def _check_rows(converted: Converted) -> None:
    """Counts what is not moved. Raises DataError for wrong types and ids: SQLite lets any column hold anything."""
    with closing(sqlite3.connect(converted.database)) as database:
        for table in TABLES:
            faults = [_IDS[table]] if table in _IDS else []
            for _, name, kind, *_ in database.execute(f"pragma table_info({table})"):
                types = _TYPES.get(kind.partition("(")[0], "'text'")
                faults.append(f"typeof({name}) not in ({types}, 'null')")
                faults.append(f"length({name}) > {MAX_TEXT}")
            query = f"select count(*) from {table} where {' or '.join(faults)}"
            (count,) = database.execute(query).fetchone()
            if count:
                raise DataError(f"{count} rows of {table} hold values that MLflow does not write")
        query = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        for (table,) in database.execute(query).fetchall():
            quoted = '"' + table.replace('"', '""') + '"'
            (count,) = database.execute(f"select count(*) from {quoted}").fetchone()
            if count and table not in (*TABLES, *_NOT_MOVED):
                converted.left_out[table] = count
