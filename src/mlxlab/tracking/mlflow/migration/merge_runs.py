"""Merges the runs of an experiment: parameters, tags, metrics with their histories, data sets."""

import sqlite3

from mlxlab.tracking.mlflow.migration.artifacts import Move
from mlxlab.tracking.mlflow.migration.tables import RUNS, columns, fill_map, insert_rows

MIGRATED = "mlxlab.migrated_from"  # tag: the store that a run or model was moved from

_STATES = """
select s.run_uuid, coalesce(s.artifact_uri, ''), m.location, c.artifact_uri,
       case when c.run_uuid is null then 'new'
            when c.start_time is not s.start_time then 'other'
            when t.key is null then 'own'
            else 'known' end
from source.runs s
join experiment_map m on m.source_id = s.experiment_id
left join main.runs c on c.run_uuid = s.run_uuid
left join main.tags t on t.run_uuid = s.run_uuid and t.key = ?
where s.experiment_id = ?
order by s.run_uuid
"""
_NAME = "coalesce(s.name, (select value from source.tags where run_uuid = s.run_uuid and key = 'mlflow.runName'))"
_LATEST = """
insert or replace into main.latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
select key, value, timestamp, step, is_nan, run_uuid
from (
    select *, row_number() over (partition by run_uuid, key order by step desc, timestamp desc, value desc) as place
    from main.metrics
    where run_uuid in (select run_uuid from run_map where experiment = ? and state in ('new', 'known'))
)
where place = 1
"""
_DATASETS = """
insert or replace into dataset_map
select s.dataset_uuid, c.dataset_uuid
from source.datasets s
join experiment_map m on m.source_id = s.experiment_id
join main.datasets c on c.experiment_id = m.target_id and c.name = s.name and c.digest = s.digest
where s.experiment_id = ?
"""
_INPUTS = """
from source.inputs s
join run_map r on r.run_uuid = iif(s.destination_type = 'RUN', s.destination_id, s.source_id)
left join dataset_map d on d.source_uuid = s.source_id and s.source_type = 'DATASET'
"""
_INPUT_KINDS = """
where r.experiment = ? and r.state in ('new', 'known') and (s.source_type, s.destination_type) in
      (values ('DATASET', 'RUN'), ('RUN_INPUT', 'MODEL_INPUT'), ('RUN_OUTPUT', 'MODEL_OUTPUT'))
"""
_ENDED = """
update main.runs set status = s.status, end_time = s.end_time
from source.runs s join run_map m on m.run_uuid = s.run_uuid and m.state = 'known'
where main.runs.run_uuid = s.run_uuid and main.runs.status in ('RUNNING', 'SCHEDULED') and s.status != main.runs.status
"""


def map_runs(database: sqlite3.Connection, experiment: int) -> tuple[list[Move], int]:
    """Fills `run_map`; returns the artifact folders to copy, and how many runs have an id that another run has."""
    rows = database.execute(_STATES, (MIGRATED, experiment)).fetchall()
    return fill_map(database, RUNS, experiment, rows), sum(row[-1] == "other" for row in rows)


def insert_runs(
    database: sqlite3.Connection, experiment: int, source: str
) -> tuple[int, int, int, int]:
    """Inserts new runs, and what known ones have got since; (runs, metrics, params, tags) that were not there."""
    special = {"name": _NAME, "artifact_uri": "m.uri"}
    runs = insert_rows(database, RUNS, "runs", experiment, only_new=True, special=special)
    counts = [
        insert_rows(database, RUNS, table, experiment) for table in ("metrics", "params", "tags")
    ]
    if counts[0]:
        database.execute(_LATEST, (experiment,))
    database.execute(
        "insert or replace into main.tags (key, value, run_uuid)"
        " select ?, ?, run_uuid from run_map where experiment = ? and state = 'new'",
        (MIGRATED, source, experiment),
    )
    return runs, counts[0], counts[1], counts[2]


def insert_inputs(database: sqlite3.Connection, experiment: int) -> int:
    """Data sets, inputs and outputs of runs; returns how many data sets are new."""
    names = columns(database, "main", "datasets")
    values = ", ".join("m.target_id" if name == "experiment_id" else f"s.{name}" for name in names)
    datasets = database.execute(
        f"insert or ignore into main.datasets ({', '.join(names)}) select {values} from source.datasets s"
        " join experiment_map m on m.source_id = s.experiment_id where s.experiment_id = ?",
        (experiment,),
    ).rowcount
    database.execute(_DATASETS, (experiment,))
    database.execute(
        "insert or ignore into main.inputs"
        " (input_uuid, source_type, source_id, destination_type, destination_id, step)"
        " select s.input_uuid, s.source_type, coalesce(d.target_uuid, s.source_id), s.destination_type,"
        f" s.destination_id, s.step {_INPUTS} {_INPUT_KINDS}",
        (experiment,),
    )
    database.execute(
        "insert or ignore into main.input_tags (input_uuid, name, value)"
        f" select c.input_uuid, t.name, t.value {_INPUTS}"
        " join source.input_tags t on t.input_uuid = s.input_uuid"
        " join main.inputs c on (c.source_type, c.source_id, c.destination_type, c.destination_id)"
        " = (s.source_type, coalesce(d.target_uuid, s.source_id), s.destination_type, s.destination_id)"
        f" {_INPUT_KINDS}",
        (experiment,),
    )
    return datasets


def update_ended(database: sqlite3.Connection) -> int:
    """Ends the runs that were running when they were moved, and have ended since."""
    return database.execute(_ENDED).rowcount
