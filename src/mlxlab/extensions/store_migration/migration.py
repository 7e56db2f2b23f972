"""Moves MLflow stores of any release into the central one: MLflow converts a copy, which one transaction merges.

Runs and logged models keep their ids, which MLflow's client cannot set, so the merge is SQL between two databases of
one schema; experiments and registered models are merged by name. What was moved has the tag `mlxlab.migrated_from`: a
later migration adds to it what the source has got since, and to nothing else. Sources are only read, and may come from
anyone: what MLflow is given is checked before, and the rows that it makes of it after.
"""

import filecmp
import glob
import io
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.files.untrusted import open_regular, read_text
from mlxlab.tracking.mlflow.address import Address, local_path, sqlite_uri
from mlxlab.tracking.mlflow.store import BUSY_SECONDS, artifact_location, open_client
from mlxlab.tracking.one_line import mlflow_errors, one_line

if TYPE_CHECKING:
    from click import Command

TABLES = (  # These are moved, parents first; latest_metrics is computed again.
    "experiments",
    "experiment_tags",
    "runs",
    "params",
    "tags",
    "metrics",
    "datasets",
    "inputs",
    "input_tags",
    "logged_models",
    "logged_model_params",
    "logged_model_tags",
    "logged_model_metrics",
    "registered_models",
    "registered_model_tags",
    "model_versions",
    "model_version_tags",
    "registered_model_aliases",
)
MIGRATED = "mlxlab.migrated_from"  # tag: the store that a run or model was moved from
META = "meta.yaml"
SUFFIXES = (".db", ".sqlite", ".sqlite3")
MAX_FILE = 2**28  # bytes of a file, such as 7 million points of a metric

_TYPES = {"INTEGER": "'integer'", "BIGINT": "'integer'", "FLOAT": "'real'", "BOOLEAN": "'integer'"}
# Ids become the names of folders.
_FALSE_IDS = {
    "runs": "length(run_uuid) != 32 or run_uuid glob '*[^0-9a-f]*'",
    "logged_models": "length(model_id) != 34 or model_id not glob 'm-*'"
    " or substr(model_id, 3) glob '*[^0-9a-f]*'",
}
# Views and triggers would run code.
_FOREIGN = """
select 'the ' || type || ' ' || substr(name, 1, 40) from sqlite_master
where type = 'view' or sql like 'create virtual%'
or type = 'trigger' and name != 'prevent_secrets_aad_mutation'
union all select 'no alembic_version'
where not exists (select 1 from sqlite_master where name = 'alembic_version')
"""
_OTHER_TABLES = f"""
select name from sqlite_master where type = 'table' and name not glob '*[^a-z_]*'
and name not in {(*TABLES, "alembic_version", "workspaces", "latest_metrics")}
"""
# The central store has runs and models of its own, which no other store may change.
_OWN = """
delete from source.runs where run_uuid in (
    select c.run_uuid from main.runs c join source.runs s using (run_uuid)
    left join main.tags t on t.run_uuid = c.run_uuid and t.key = :tag
    where t.key is null or c.start_time is not s.start_time
);
delete from source.logged_models where model_id in (
    select c.model_id from main.logged_models c
    left join main.logged_model_tags t on t.model_id = c.model_id and t.tag_key = :tag
    where t.tag_key is null
);
delete from source.params where run_uuid not in (select run_uuid from source.runs);
delete from source.tags where run_uuid not in (select run_uuid from source.runs) or key = :tag;
delete from source.metrics where run_uuid not in (select run_uuid from source.runs);
delete from source.inputs where iif(destination_type = 'RUN', destination_id, source_id)
    not in (select run_uuid from source.runs);
delete from source.logged_model_params where model_id not in (select model_id from source.logged_models);
delete from source.logged_model_tags
    where model_id not in (select model_id from source.logged_models) or tag_key = :tag;
delete from source.logged_model_metrics
    where model_id not in (select model_id from source.logged_models)
    or run_id not in (select run_uuid from source.runs);
insert into source.tags (key, value, run_uuid)
    select :tag, :store, run_uuid from source.runs
    where run_uuid not in (select run_uuid from main.runs);
insert into source.logged_model_tags (model_id, experiment_id, tag_key, tag_value)
    select model_id, experiment_id, :tag, :store from source.logged_models
    where model_id not in (select model_id from main.logged_models);
update source.runs set name = (
    select value from source.tags t where t.run_uuid = runs.run_uuid and key = 'mlflow.runName'
) where name is null
"""
# A version that both have is one of the same run and time; others get the next free number.
_VERSIONS = """
create temp table version_map as select s.name, s.version as source_version, coalesce(
    (
        select min(c.version) from main.model_versions c
        where c.name = s.name and c.run_id is s.run_id and c.creation_time is s.creation_time
    ),
    case when s.version in (select version from main.model_versions where name = s.name)
        then row_number() over (partition by s.name order by s.version) + max(
            (select max(version) from main.model_versions where name = s.name),
            (select max(version) from source.model_versions where name = s.name)
        )
        else s.version
    end
) as target_version from source.model_versions s
"""
# The ids of experiments in both stores, and where the artifacts of runs and models move to.
_EXPERIMENTS = """
create temp table experiment_map as
    select s.experiment_id as source_id, c.experiment_id as target_id,
    iif(path(c.artifact_location) is null, location(c.name), rtrim(c.artifact_location, '/')) as location
    from source.experiments s join main.experiments c on c.name = s.name;
create temp table moves as
    select owner, old, coalesce(central, location || tail) as new, '/' || owner || '/artifacts' as tail from (
        select s.run_uuid as owner, s.artifact_uri as old, c.artifact_uri as central, m.location,
        '/' || s.run_uuid || '/artifacts' as tail
        from source.runs s join experiment_map m on m.source_id = s.experiment_id
        left join main.runs c on c.run_uuid = s.run_uuid
        union all
        select s.model_id, s.artifact_location, c.artifact_location, m.location,
        '/models/' || s.model_id || '/artifacts'
        from source.logged_models s join experiment_map m on m.source_id = s.experiment_id
        left join main.logged_models c on c.model_id = s.model_id
    ) where path(old) is not null and path(coalesce(central, location)) is not null;
update source.runs set artifact_uri = m.new from moves m where m.owner = run_uuid;
update source.logged_models set artifact_location = m.new from moves m where m.owner = model_id;
update source.model_versions
    set source = m.new || substr(path(source), instr(path(source), m.tail) + length(m.tail))
    from moves m where instr(path(source), m.tail);
update source.model_versions
    set storage_location = m.new
    || substr(path(storage_location), instr(path(storage_location), m.tail) + length(m.tail))
    from moves m where instr(path(storage_location), m.tail)
"""
# A data set is one by experiment, name and digest, and an input by its two sides: the ids of both differ.
_DATASETS = """
create temp table dataset_map as
    select s.dataset_uuid as source_id, c.dataset_uuid as target_id from source.datasets s
    join experiment_map m on m.source_id = s.experiment_id
    join main.datasets c on c.experiment_id = m.target_id and c.name = s.name and c.digest = s.digest;
update source.inputs set source_id = m.target_id
    from dataset_map m where source_type = 'DATASET' and source.inputs.source_id = m.source_id;
update source.logged_model_metrics set dataset_uuid = m.target_id
    from dataset_map m where dataset_uuid = m.source_id;
delete from source.inputs where (source_type, source_id, destination_type, destination_id) in
    (select source_type, source_id, destination_type, destination_id from main.inputs);
delete from source.input_tags where input_uuid not in (select input_uuid from source.inputs)
"""
_AFTER = {"experiments": _EXPERIMENTS, "datasets": _DATASETS}
_LATEST = """
insert or replace into main.latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
select key, value, timestamp, step, is_nan, run_uuid from (
    select *, row_number() over (
        partition by run_uuid, key order by step desc, timestamp desc, value desc
    ) as position
    from main.metrics where run_uuid in (select run_uuid from source.runs)
) where position = 1
"""
_ENDED = """
update main.runs set status = s.status, end_time = s.end_time from source.runs s
where main.runs.run_uuid = s.run_uuid
and main.runs.status in ('RUNNING', 'SCHEDULED') and s.status != main.runs.status
"""
# Column -> its value in the central store, if another than in the source `s`; a new experiment keeps its id if it can.
_VALUES = {"experiment_id": "m.target_id", "version": "v.target_version"}
_EXPERIMENT_VALUES = {
    "experiment_id": "iif(experiment_id in (select experiment_id from main.experiments), null, experiment_id)",
    "artifact_location": "location(name)",
}
_NEW_EXPERIMENTS = """
where name not in (select name from main.experiments)
order by experiment_id in (select experiment_id from main.experiments)
"""


@dataclass
class Result:
    """What was moved of one store."""

    store: Path
    rows: dict[str, int] = field(default_factory=dict)  # table -> new rows
    files: int = 0  # number of artifacts that were copied
    left_out: list[str] = field(default_factory=list)  # a line for each thing that was not moved
    error: str | None = None  # why nothing was moved


def find_stores(source: Path, central: Path) -> list[Path]:
    """The store in a file, or those below a folder, without the central one; sorted.

    Raises InputNotFoundError if there is none.
    """
    path = source.expanduser().resolve()
    stores = {path} if path.is_file() else set()
    for suffix in SUFFIXES:
        # A file that is just being written has a name with a dot in front.
        stores.update(filter(_is_store, path.rglob(f"[!.]*{suffix}")))
    for meta in path.rglob(META):
        root = meta.parent.parent
        # The folder of an experiment is named by its number.
        if meta.parent.name.isdecimal() and root.name != ".trash":
            stores.add(root)
    stores.discard(central.resolve())
    if not stores:
        raise InputNotFoundError(f"source={source}: no MLflow store found, except {central}")
    return sorted(stores)


def _is_store(path: Path) -> bool:
    """Whether a file is a database with migrations: their table stands on the first pages."""
    try:
        with open_regular(path) as file:
            return b"alembic_version" in file.read(2**20)
    except UserError:
        return False


def migrate(
    stores: Sequence[Path], address: Address, *, dry_run: bool
) -> tuple[list[Result], Path | None]:
    """Returns a result per store, and the backup of the central one; an error of a store does not stop the others.

    Args:
        address: the central store, an SQLite file with a local folder for artifacts.
        dry_run: works on a copy of the central store, and copies no artifacts.

    Raises:
        ServiceUnavailableError: the central store cannot be used.
    """
    assert address.database is not None
    with tempfile.TemporaryDirectory() as folder, mlflow_errors(address.shown):
        copy = Path(f"{address.database}.backup-{time.strftime('%Y%m%d-%H%M%S')}")
        central = address
        if dry_run:
            copy = Path(folder) / "central.db"
            central = replace(address, uri=sqlite_uri(copy))
        if address.database.exists():
            with (
                closing(sqlite3.connect(address.database)) as database,
                closing(sqlite3.connect(copy)) as target,
            ):
                database.backup(target)
        open_client(central)
        results = [_migrate_store(store, central, dry_run) for store in stores]
        if dry_run or not any(result.rows for result in results):
            copy.unlink(missing_ok=True)
        return results, copy if copy.exists() else None


def _migrate_store(store: Path, central: Address, dry_run: bool) -> Result:
    result = Result(store)
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = _convert(store, Path(folder), result.left_out)
            _merge(store, copy, central, result, dry_run)
    except (sqlite3.Error, OSError, yaml.YAMLError, UserError) as error:
        return Result(store, error=f"{store}: cannot be moved ({one_line(error)})")
    return result


def _convert(store: Path, folder: Path, left_out: list[str]) -> Path:
    """Converts a store into a database of the installed MLflow, by MLflow's own commands."""
    import mlflow.db
    from mlflow.store.fs2db.cli import migrate_filestore

    copy = folder / "copy.db"
    uri = sqlite_uri(copy)
    if store.is_file():
        _copy_database(store, copy)
        with closing(sqlite3.connect(copy)) as database:
            for (part,) in database.execute(_FOREIGN):
                raise DataError(f"it has {part}")
        _run(mlflow.db.upgrade, uri)
    else:
        shutil.copytree(store, folder / "mlruns", ignore=_ignored, copy_function=_copy_text)
        _run(migrate_filestore, "--source", str(folder), "--target", uri, "--no-progress")
    with closing(sqlite3.connect(copy)) as database:
        _check_rows(database, left_out)
    return copy


def _run(command: "Command", *args: str) -> None:
    """Runs a command of MLflow's command line, without its output; raises DataError."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            command.main(args, standalone_mode=False)
    except Exception as error:  # Errors of MLflow and of databases have no common base.
        raise DataError(one_line(error)) from error


def _copy_database(path: Path, copy: Path) -> None:
    """Copies a database that nobody writes meanwhile, with its log: SQLite would create files next to the original."""
    files = [path, *path.parent.glob(f"{glob.escape(path.name)}-*")]
    times = [file.stat().st_mtime_ns for file in files]
    for file in files:
        shutil.copyfile(file, f"{copy}{file.name.removeprefix(path.name)}")
    if [file.stat().st_mtime_ns for file in files] != times:
        raise DataError("a program is writing it")


def _ignored(folder: str, names: Collection[str]) -> set[str]:
    """The artifacts and the symbolic links of a file store."""
    ignored = {name for name in names if os.path.islink(os.path.join(folder, name))}
    if META in names:
        ignored.add("artifacts")
    return ignored


def _copy_text(source: str, target: str) -> None:
    """Copies a file of a file store; raises UserError or YAMLError if MLflow should not read it."""
    path = Path(source)
    text = read_text(path, max_bytes=MAX_FILE)
    if path.name == META:
        # Aliases could unfold to any size.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise DataError(f"{path}: aliases are not read")
    elif "metrics" in Path(target).parts:
        # MLflow's command takes neither a torn last line nor a line that is there twice.
        lines = text.splitlines(keepends=True)
        text = "".join(dict.fromkeys(line for line in lines if line.endswith("\n")))
    Path(target).write_text(text, encoding="utf-8")


def _check_rows(database: sqlite3.Connection, left_out: list[str]) -> None:
    """Counts what is not moved. Raises DataError for wrong types and ids: SQLite lets any column hold anything."""
    for (table,) in database.execute(_OTHER_TABLES).fetchall():
        (count,) = database.execute(f"select count(*) from {table}").fetchone()
        if count:
            left_out.append(f"{count} rows of {table}")
    for table in TABLES:
        faults = [_FALSE_IDS.get(table, "false")]
        for _, name, kind, *_ in database.execute(f"pragma table_info({table})"):
            types = _TYPES.get(kind.partition("(")[0], "'text'")
            faults.append(f"typeof({name}) not in ({types}, 'null')")
        query = f"select 1 from {table} where {' or '.join(faults)}"
        if database.execute(query).fetchone():
            raise DataError(f"rows of {table} hold values that MLflow does not write")


def _merge(store: Path, copy: Path, central: Address, result: Result, dry_run: bool) -> None:
    """Adds the rows and the artifacts that the central store lacks."""
    assert central.database is not None
    database = sqlite3.connect(central.database, timeout=BUSY_SECONDS, isolation_level=None)
    with closing(database):
        database.create_function("path", 1, _path)
        database.create_function("location", 1, lambda name: artifact_location(central, name))
        database.execute("attach ? as source", (str(copy),))
        with database:
            database.execute("begin immediate")
            result.rows = _insert_all(database, {"tag": MIGRATED, "store": str(store)})
            moves = database.execute("select owner, path(old), path(new) from moves")
            for owner, old, new in moves.fetchall():
                folder = _find_artifacts(store, owner, old)
                if folder is not None:
                    result.files += _copy_artifacts(folder, Path(new), dry_run)


def _path(location: str | None) -> str | None:
    path = local_path(location or "")
    return None if path is None else str(path)


def _insert_all(database: sqlite3.Connection, values: dict[str, str]) -> dict[str, int]:
    """Inserts what the central store lacks; returns the new rows by table."""
    rows = {}
    _execute(database, f"{_OWN};{_VERSIONS}", values)
    for table in TABLES:
        rows[table] = _insert(database, table)
        _execute(database, _AFTER.get(table, ""), values)
    database.execute(_LATEST)
    rows["ended runs"] = database.execute(_ENDED).rowcount
    return {table: count for table, count in rows.items() if count}


def _execute(database: sqlite3.Connection, statements: str, values: dict[str, str]) -> None:
    """Executes several statements: `executescript` would end the transaction."""
    for statement in statements.split(";"):
        database.execute(statement, values)


def _insert(database: sqlite3.Connection, table: str) -> int:
    """Inserts the rows of a table that the central store lacks, under its ids; returns their number."""
    names = [row[1] for row in database.execute(f"pragma main.table_info({table})")]
    values = _VALUES
    rest = ""
    if table == "experiments":
        values = _EXPERIMENT_VALUES
        rest = _NEW_EXPERIMENTS
    elif "experiment_id" in names:
        rest = "join experiment_map m on m.source_id = s.experiment_id"
    elif "version" in names:
        rest = "join version_map v on v.name = s.name and v.source_version = s.version"
    columns = ", ".join(values.get(name, f"s.{name}") for name in names)
    query = f"insert or ignore into main.{table} ({', '.join(names)}) select {columns} from source.{table} s {rest}"
    return database.execute(query).rowcount


def _find_artifacts(store: Path, owner: str, location: str) -> Path | None:
    """The folder of the artifacts of a run or a model, also if the store was moved with them.

    Only a folder below one named by the id of its owner is read.
    """
    parts = Path(location).parts
    for root in (Path("/"), store, *store.parents):
        for start in range(len(parts)):
            folder = root.joinpath(*parts[start:]).resolve()
            if owner in folder.parts and folder.is_dir():
                return folder
    return None


def _copy_artifacts(folder: Path, target: Path, dry_run: bool) -> int:
    """Copies new and changed files, without symbolic links and pipes; returns their number."""
    count = 0
    for path in folder.rglob("*"):
        copy = target / path.relative_to(folder)
        is_known = copy.is_file() and filecmp.cmp(path, copy)
        if path.is_file() and not path.is_symlink() and not is_known:
            count += 1
            if not dry_run:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
    return count
