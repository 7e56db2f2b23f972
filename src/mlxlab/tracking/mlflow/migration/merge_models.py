"""Merges the logged models of an experiment (MLflow 3), with their parameters, tags and metrics."""

import sqlite3

from mlxlab.tracking.mlflow.address import local_path
from mlxlab.tracking.mlflow.migration.artifacts import Move
from mlxlab.tracking.mlflow.migration.merge_runs import MIGRATED
from mlxlab.tracking.mlflow.migration.tables import columns

_STATES = """
select s.model_id, s.artifact_location, m.location, c.artifact_location,
       case when c.model_id is null then 'new' when t.model_id is null then 'own' else 'known' end
from source.logged_models s
join experiment_map m on m.source_id = s.experiment_id
left join main.logged_models c on c.model_id = s.model_id
left join main.logged_model_tags t on t.model_id = s.model_id and t.tag_key = ?
where s.experiment_id = ?
order by s.model_id
"""


def map_models(database: sqlite3.Connection, experiment: int) -> list[Move]:
    """Fills `model_map`, with states as of runs; returns the artifact folders to copy."""
    moves = []
    rows = database.execute(_STATES, (MIGRATED, experiment)).fetchall()
    for model_id, source_location, location, central_location, state in rows:
        new = f"{location}/models/{model_id}/artifacts" if local_path(source_location) else source_location
        new = central_location if state == "known" else new
        database.execute("insert into model_map values (?, ?, ?, ?)", (model_id, experiment, state, new))
        target = local_path(new)
        if state in ("new", "known") and local_path(source_location) and target:
            moves.append(Move(source_location, model_id, target))
    return moves


def insert_models(database: sqlite3.Connection, experiment: int, source: str) -> int:
    """Inserts new models, and what known ones have got since; returns how many are new."""
    models = _insert(database, "logged_models", experiment, "('new')", {"artifact_location": "m.location"})
    for table in ("logged_model_params", "logged_model_tags"):
        _insert(database, table, experiment, "('new', 'known')", {})
    where = " and s.run_id in (select run_uuid from main.runs)"
    dataset = {"dataset_uuid": "(select target_uuid from dataset_map where source_uuid = s.dataset_uuid)"}
    _insert(database, "logged_model_metrics", experiment, "('new', 'known')", dataset, where)
    database.execute(
        "insert or replace into main.logged_model_tags (model_id, experiment_id, tag_key, tag_value)"
        " select m.model_id, e.target_id, ?, ? from model_map m"
        " join experiment_map e on e.source_id = m.experiment where m.experiment = ? and m.state = 'new'",
        (MIGRATED, source, experiment),
    )
    return models


def _insert(
    database: sqlite3.Connection, table: str, experiment: int, states: str, special: dict[str, str], where: str = ""
) -> int:
    special = special | {"experiment_id": "e.target_id"}
    names = columns(database, "main", table)
    values = ", ".join(special.get(name, f"s.{name}") for name in names)
    query = (
        f"insert or ignore into main.{table} ({', '.join(names)}) select {values} from source.{table} s"
        " join model_map m on m.model_id = s.model_id join experiment_map e on e.source_id = m.experiment"
        f" where m.experiment = ? and m.state in {states}{where}"
    )
    return database.execute(query, (experiment,)).rowcount
