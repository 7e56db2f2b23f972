"""Merges the logged models of an experiment (MLflow 3), with their parameters, tags and metrics."""

import sqlite3

from mlxlab.tracking.mlflow.migration.artifacts import Move
from mlxlab.tracking.mlflow.migration.merge_runs import MIGRATED
from mlxlab.tracking.mlflow.migration.tables import MODELS, fill_map, insert_rows

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
    """Fills `model_map`; returns the artifact folders to copy."""
    return fill_map(
        database, MODELS, experiment, database.execute(_STATES, (MIGRATED, experiment)).fetchall()
    )


def insert_models(database: sqlite3.Connection, experiment: int, source: str) -> int:
    """Inserts new models, and what known ones have got since; returns how many are new."""
    location = {"artifact_location": "m.location"}
    models = insert_rows(
        database, MODELS, "logged_models", experiment, only_new=True, special=location
    )
    for table in ("logged_model_params", "logged_model_tags"):
        insert_rows(database, MODELS, table, experiment)
    dataset = {
        "dataset_uuid": "(select target_uuid from dataset_map where source_uuid = s.dataset_uuid)"
    }
    where = "and s.run_id in (select run_uuid from main.runs)"
    insert_rows(database, MODELS, "logged_model_metrics", experiment, special=dataset, where=where)
    database.execute(
        "insert or replace into main.logged_model_tags (model_id, experiment_id, tag_key, tag_value)"
        " select m.model_id, e.target_id, ?, ? from model_map m"
        " join experiment_map e on e.source_id = m.experiment where m.experiment = ? and m.state = 'new'",
        (MIGRATED, source, experiment),
    )
    return models
