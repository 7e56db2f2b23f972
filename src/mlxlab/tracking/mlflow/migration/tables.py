"""What is moved of a store: the tables, the staged copy that holds their rows, and the rows of runs and models."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlxlab.tracking.mlflow.address import local_path
from mlxlab.tracking.mlflow.migration.artifacts import Move
from mlxlab.tracking.mlflow.migration.sources import Source

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


@dataclass
class Staged:
    """A source, ready to be merged."""

    source: Source
    database: Path
    skipped: list[str] = field(default_factory=list)  # a line for each thing that could not be read
    left_out: dict[str, int] = field(
        default_factory=dict
    )  # table that is not moved -> number of its rows


def columns(database: sqlite3.Connection, schema: str, table: str) -> list[str]:
    """Names of the stored columns of a table; [] if there is no such table."""
    return [row[1] for row in database.execute(f"pragma {schema}.table_info({table})")]


@dataclass(frozen=True)
class Owner:
    """What rows and artifacts belong to: runs, or logged models.

    `map` is the temporary table of them (id, experiment of the source, state, location of the artifacts), `key` the
    column of their ids, `folder` that of the artifacts below those of the experiment. Of the states, `new` ones are
    inserted, `known` ones were moved before, `own` ones are of the central store.
    """

    map: str
    key: str
    folder: str


RUNS = Owner("run_map", "run_uuid", "{}/artifacts")
MODELS = Owner("model_map", "model_id", "models/{}/artifacts")


def fill_map(
    database: sqlite3.Connection,
    owner: Owner,
    experiment: int,
    rows: Iterable[tuple[str, str, str, str, str]],
) -> list[Move]:
    """Fills the map of an experiment; returns the artifact folders to copy.

    Args:
        rows: id, artifacts in the source, artifacts of the experiment and of the id in the central store, state.
    """
    moves = []
    for owner_id, source, experiment_location, central, state in rows:
        location = (
            f"{experiment_location}/{owner.folder.format(owner_id)}"
            if local_path(source)
            else source
        )
        location = central if state == "known" else location
        database.execute(
            f"insert into {owner.map} values (?, ?, ?, ?)", (owner_id, experiment, state, location)
        )
        target = local_path(location)
        if state in ("new", "known") and local_path(source) and target:
            moves.append(Move(source, owner_id, target))
    return moves


def insert_rows(
    database: sqlite3.Connection,
    owner: Owner,
    table: str,
    experiment: int,
    *,
    only_new: bool = False,
    special: Mapping[str, str] | None = None,
    where: str = "",
) -> int:
    """Inserts the rows of new and known owners that are not there yet; returns their number.

    Args:
        special: column -> expression, of `s`, the row, `m`, its owner, and `e`, the experiment.
        where: a further condition.
    """
    values = {"experiment_id": "e.target_id", **(special or {})}
    names = columns(database, "main", table)
    states = "('new')" if only_new else "('new', 'known')"
    query = (
        f"insert or ignore into main.{table} ({', '.join(names)})"
        f" select {', '.join(values.get(name, f's.{name}') for name in names)} from source.{table} s"
        f" join {owner.map} m on m.{owner.key} = s.{owner.key} join experiment_map e on e.source_id = m.experiment"
        f" where m.experiment = ? and m.state in {states} {where}"
    )
    return database.execute(query, (experiment,)).rowcount
