"""Merges a staged store into the central one, within a transaction of the caller.

Runs and logged models keep their ids; experiments are merged by name, registered models too. What was moved bears the
tag `mlxlab.migrated_from`: a later migration adds to it what the source has got since, and to nothing else.
"""

import sqlite3
from dataclasses import dataclass, field
from typing import NamedTuple

from mlxlab.errors import DataError
from mlxlab.tracking.mlflow.address import Address, local_path
from mlxlab.tracking.mlflow.client import artifact_location
from mlxlab.tracking.mlflow.migration import merge_models, merge_registry, merge_runs
from mlxlab.tracking.mlflow.migration.artifacts import Move
from mlxlab.tracking.mlflow.migration.tables import Staged

_MAPS = """
create temp table experiment_map (source_id integer primary key, target_id integer, location text);
create temp table run_map (run_uuid text primary key, experiment integer, state text, uri text);
create temp table dataset_map (source_uuid text primary key, target_uuid text);
create temp table model_map (model_id text primary key, experiment integer, state text, location text);
create temp table version_map (name text, source_version integer, version integer);
"""
_CHECKED = {
    "metrics": "('new', 'known')",
    "params": "('new')",
    "tags": "('new')",
}  # states of the runs compared


class ExperimentCounts(NamedTuple):
    """What an experiment has got: numbers of rows that the central store did not have."""

    experiment: str
    runs: int
    metrics: int
    params: int
    tags: int
    datasets: int
    models: int


@dataclass
class Merged:
    experiments: list[ExperimentCounts] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)  # registered model -> new versions
    moves: list[Move] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_changes: bool = False


def merge(database: sqlite3.Connection, staged: Staged, address: Address) -> Merged:
    """Adds the rows of the staged store, attached as `source`; raises DataError if they are not all there after."""
    merged = Merged()
    for name in ("experiment_map", "run_map", "dataset_map", "model_map", "version_map"):
        database.execute(f"drop table if exists temp.{name}")
    for statement in filter(str.strip, _MAPS.split(";")):
        database.execute(statement)
    query = (
        "select experiment_id, name, lifecycle_stage from source.experiments order by experiment_id"
    )
    changes = 0
    for number, name, lifecycle in database.execute(query).fetchall():
        start = database.total_changes
        target, location = _experiment(database, number, name, lifecycle, address, merged)
        changes += database.total_changes - start
        database.execute("insert into experiment_map values (?, ?, ?)", (number, target, location))
        counts = _experiment_rows(database, staged, number, name, merged)
        changes += sum(counts[1:])
        if any(counts[1:]):
            merged.experiments.append(counts)
    changes += merge_runs.update_ended(database)
    merged.versions, registry_changes, notes = merge_registry.merge_registry(database)
    merged.notes += notes
    merged.has_changes = changes + registry_changes > 0
    _verify(database)
    return merged


def _experiment(
    database: sqlite3.Connection,
    number: int,
    name: str,
    lifecycle: str,
    address: Address,
    merged: Merged,
) -> tuple[int, str]:
    """(id, artifact location) in the central store, where the experiment is created unless it exists."""
    location = artifact_location(address, name)
    query = "select experiment_id, artifact_location, lifecycle_stage from main.experiments where name = ?"
    row = database.execute(query, (name,)).fetchone()
    if row is None:
        count = "select max(experiment_id), count(*) filter (where experiment_id = ?) from main.experiments"
        highest, used = database.execute(count, (number,)).fetchone()
        target = highest + 1 if used else number
        database.execute(
            "insert into main.experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time,"
            " last_update_time) select ?, name, ?, lifecycle_stage, creation_time, last_update_time"
            " from source.experiments where experiment_id = ?",
            (target, location, number),
        )
    else:
        target, own, own_lifecycle = row
        location = own if own and local_path(own) else location
        if own_lifecycle == "deleted" and lifecycle == "active":
            update = (
                "update main.experiments set lifecycle_stage = 'active' where experiment_id = ?"
            )
            database.execute(update, (target,))
            merged.notes.append(
                f"experiment {name} was deleted in the central store, and is restored"
            )
    database.execute(
        "insert or ignore into main.experiment_tags (key, value, experiment_id)"
        " select key, value, ? from source.experiment_tags where experiment_id = ?",
        (target, number),
    )
    return target, location.rstrip("/")


def _experiment_rows(
    database: sqlite3.Connection, staged: Staged, number: int, name: str, merged: Merged
) -> ExperimentCounts:
    source = str(staged.source.path)
    moves, others = merge_runs.map_runs(database, number)
    merged.moves += moves
    if others:
        merged.notes.append(
            f"experiment {name}: {others} runs left out: others in the central store have their ids"
        )
    runs = merge_runs.insert_runs(database, number, source)
    datasets = merge_runs.insert_inputs(database, number)
    merged.moves += merge_models.map_models(database, number)
    models = merge_models.insert_models(database, number, source)
    return ExperimentCounts(name, *runs, datasets, models)


def _verify(database: sqlite3.Connection) -> None:
    """Compares what was moved with the source, row by row and value by value."""
    for table, states in _CHECKED.items():
        names = "key, value, run_uuid" + (", timestamp, step, is_nan" if table == "metrics" else "")
        runs = f"(select run_uuid from run_map where state in {states})"
        query = (
            f"select run_uuid from (select {names} from source.{table} where run_uuid in {runs}"
            f" except select {names} from main.{table} where run_uuid in {runs}) limit 1"
        )
        if row := database.execute(query).fetchone():
            raise DataError(
                f"run {row[0]}: its {table} differ from those that were moved before; nothing is changed"
            )
