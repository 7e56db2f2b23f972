"""What is moved of a store: the tables, and the staged copy that holds their rows."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

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
    left_out: dict[str, int] = field(default_factory=dict)  # table that is not moved -> number of its rows


def columns(database: sqlite3.Connection, schema: str, table: str) -> list[str]:
    """Names of the stored columns of a table; [] if there is no such table."""
    return [row[1] for row in database.execute(f"pragma {schema}.table_info({table})")]
