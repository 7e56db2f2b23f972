"""Merges a converted store, attached as `source`, into the central one, within a transaction of the caller.

Runs and logged models keep their ids; experiments and registered models are merged by name. What was moved bears the
tag `mlxlab.migrated_from`: a later migration adds to it what the source has got since, and to nothing else. The rows
of `source` are changed until they can be inserted as they are.
"""

import sqlite3
from pathlib import Path

from mlxlab.errors import DataError
from mlxlab.tracking.mlflow.address import Address, local_path
from mlxlab.tracking.mlflow.client import artifact_location
from mlxlab.tracking.mlflow.migration.artifacts import Move

TABLES = (  # those that are moved, parents first; latest_metrics is computed again
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

_MAPS = """
create temp table experiment_map (source_id integer primary key, target_id integer, location text);
create temp table version_map (name text, source_version integer, target_version integer);
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
delete from source.latest_metrics;
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
"""
_TAGS = """
insert into source.tags (key, value, run_uuid)
    select :tag, :store, run_uuid from source.runs
    where run_uuid not in (select run_uuid from main.runs);
insert into source.logged_model_tags (model_id, experiment_id, tag_key, tag_value)
    select model_id, experiment_id, :tag, :store from source.logged_models
    where model_id not in (select model_id from main.logged_models);
update source.runs set name = (
    select value from source.tags t where t.run_uuid = runs.run_uuid and key = 'mlflow.runName'
) where name is null;
"""
# A version that both have is one of the same run and time; others get the next free number.
_VERSIONS = """
insert into version_map select s.name, s.version, coalesce(
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
) from source.model_versions s;
"""
# A data set is one by experiment, name and digest, and an input by its two sides: the ids of both differ.
_INPUTS = """
create temp table dataset_map as
    select s.dataset_uuid as source_id, c.dataset_uuid as target_id from source.datasets s
    join experiment_map m on m.source_id = s.experiment_id
    join main.datasets c on c.experiment_id = m.target_id and c.name = s.name and c.digest = s.digest;
update source.inputs set source_id = m.target_id
    from dataset_map m where source_type = 'DATASET' and source.inputs.source_id = m.source_id;
update source.logged_model_metrics set dataset_uuid = m.target_id
    from dataset_map m where dataset_uuid = m.source_id;
drop table temp.dataset_map;
delete from source.inputs where (source_type, source_id, destination_type, destination_id) in
    (select source_type, source_id, destination_type, destination_id from main.inputs);
delete from source.input_tags where input_uuid not in (select input_uuid from source.inputs);
"""
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
_MOVES = """
select s.run_uuid, s.artifact_uri, m.location || '/' || s.run_uuid || '/artifacts', c.artifact_uri
from source.runs s join experiment_map m on m.source_id = s.experiment_id
left join main.runs c on c.run_uuid = s.run_uuid
union all
select s.model_id, s.artifact_location, m.location || '/models/' || s.model_id || '/artifacts', c.artifact_location
from source.logged_models s join experiment_map m on m.source_id = s.experiment_id
left join main.logged_models c on c.model_id = s.model_id
"""


def merge(
    database: sqlite3.Connection, store: Path, address: Address
) -> tuple[dict[str, int], list[Move]]:
    """Adds what the central store lacks; returns the new rows by table, and the folders of artifacts to copy."""
    names = {"tag": MIGRATED, "store": str(store)}
    _execute(database, _MAPS + _OWN + _TAGS + _VERSIONS, names)
    query = "select experiment_id, name from source.experiments order by experiment_id"
    for number, name in database.execute(query).fetchall():
        target, location = _experiment(database, number, name, address)
        database.execute("insert into experiment_map values (?, ?, ?)", (number, target, location))
    moves = _move_artifacts(database)
    rows = {}
    for table in TABLES:
        if table == "inputs":
            _execute(database, _INPUTS, names)
        rows[table] = _insert(database, table)
    database.execute(_LATEST)
    rows["ended runs"] = database.execute(_ENDED).rowcount
    _verify(database, "metrics", "run_uuid, key, timestamp, step, value, is_nan")
    _verify(database, "params", "run_uuid, key, value")
    _verify(database, "tags", "run_uuid, key")
    return {table: count for table, count in rows.items() if count}, moves


def _execute(database: sqlite3.Connection, statements: str, values: dict[str, str]) -> None:
    """Executes several statements: `executescript` would end the transaction."""
    for statement in statements.split(";"):
        database.execute(statement, values)


def _experiment(
    database: sqlite3.Connection, number: int, name: str, address: Address
) -> tuple[int, str]:
    """The id and the folder of an experiment in the central store; a new one keeps its number if that is free."""
    location = artifact_location(address, name)
    query = "select experiment_id, artifact_location from main.experiments where name = ?"
    row = database.execute(query, (name,)).fetchone()
    if row is not None:
        target, own = row
        return target, own.rstrip("/") if own and local_path(own) else location
    query = (
        "select coalesce(max(experiment_id), 0) + 1, max(experiment_id = ?) from main.experiments"
    )
    free, is_taken = database.execute(query, (number,)).fetchone()
    target = free if is_taken else number
    database.execute(
        "insert into main.experiments (experiment_id, name, artifact_location, lifecycle_stage,"
        " creation_time, last_update_time)"
        " select ?, name, ?, lifecycle_stage, creation_time, last_update_time"
        " from source.experiments where experiment_id = ?",
        (target, location, number),
    )
    return target, location


def _move_artifacts(database: sqlite3.Connection) -> list[Move]:
    """Rewrites the addresses of local artifacts to those in the central store; returns the folders to copy."""
    folders: dict[str, str] = {}
    moves = []
    for owner, old, new, central in database.execute(_MOVES).fetchall():
        target = local_path(central or new)
        if local_path(old or "") is None or target is None:
            continue
        folders[owner] = central or new
        moves.append(Move(old, owner, target))
    database.create_function("moved", 1, lambda location: _moved(location, folders))
    database.create_function("folder", 2, lambda owner, location: folders.get(owner, location))
    database.execute("update source.runs set artifact_uri = folder(run_uuid, artifact_uri)")
    update = (
        "update source.logged_models set artifact_location = folder(model_id, artifact_location)"
    )
    database.execute(update)
    update = "source = moved(source), storage_location = moved(storage_location)"
    database.execute(f"update source.model_versions set {update}")
    return moves


def _moved(location: str | None, folders: dict[str, str]) -> str | None:
    """An address within the artifacts of a run or a logged model, where these are now; others stay as they are."""
    path = local_path(location or "")
    parts = path.parts if path else ()
    for index, part in enumerate(parts[1:], 1):
        if part == "artifacts" and parts[index - 1] in folders:
            return "/".join([folders[parts[index - 1]], *parts[index + 1 :]])
    return location


def _insert(database: sqlite3.Connection, table: str) -> int:
    """Inserts the rows of a table that the central store lacks, under its ids; returns their number."""
    names = [row[1] for row in database.execute(f"pragma main.table_info({table})")]
    values = {name: f"s.{name}" for name in names}
    joins = ""
    if table == "experiments":
        joins = "where false"  # `_experiment` has inserted them.
    elif "experiment_id" in names:
        values["experiment_id"] = "m.target_id"
        joins = "join experiment_map m on m.source_id = s.experiment_id"
    elif "version" in names:
        values["version"] = "v.target_version"
        joins = "join version_map v on v.name = s.name and v.source_version = s.version"
    query = (
        f"insert or ignore into main.{table} ({', '.join(names)})"
        f" select {', '.join(values.values())} from source.{table} s {joins}"
    )
    return database.execute(query).rowcount


def _verify(database: sqlite3.Connection, table: str, names: str) -> None:
    """Raises DataError if rows of the source are not in the central store."""
    difference = f"select {names} from source.{table} except select {names} from main.{table}"
    (count,) = database.execute(f"select count(*) from ({difference})").fetchone()
    if count:
        raise DataError(f"{count} rows of {table} differ from those that were moved before")
