"""Reads runs out of a store: the interface, and plain SQL for SQLite, as MLflow's client needs 2 ms per run."""

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import quote

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.client import clean

Kind = Literal["metrics", "experiments", "runs"]

_RUNS = """
select r.run_uuid, coalesce(r.name, ''), e.name, iif(r.lifecycle_stage = 'active', r.status, 'deleted'),
       r.start_time, r.end_time,
       (select value from tags where run_uuid = r.run_uuid and key = 'mlxlab.uid') as uid,
       (select value from tags where run_uuid = r.run_uuid and key = 'mlflow.parentRunId') as parent,
       (select value from tags where run_uuid = r.run_uuid and key = 'mlxlab.folder') as folder
from runs r join experiments e on e.experiment_id = r.experiment_id
"""
_NAMES = {
    "metrics": "select distinct key from latest_metrics",
    "experiments": "select name from experiments",
    "runs": "select name from runs union select run_uuid from runs",
}
_VALUE = "case when not is_nan then value end"  # MLflow stores NaN as 0
MAX_MATCHES = 20
MAX_VARIABLES = 500  # of one query; SQLite's limit is 999


@dataclass
class RunRow:
    """A run in the store. Times in ms since 1970."""

    run_id: str
    name: str
    experiment: str
    status: str
    start: int | None
    end: int | None
    uid: str | None  # of its journal
    parent: str | None  # run id
    folder: str | None
    metrics: dict[str, float] = field(default_factory=dict)  # latest values
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class MetricRange(NamedTuple):
    """The history of one metric. `min` and `max` ignore NaN, and are NaN if there is nothing else."""

    points: int
    min: float
    max: float
    last_step: int


class RunReader(Protocol):
    """Reads runs out of a store. Every method raises ServiceUnavailableError if the store cannot be read."""

    def list_runs(self, *, limit: int, experiment: str | None, status: str | None, sort: str | None) -> list[RunRow]:
        """The newest runs first, or the best first by the metric `sort`; with their latest metrics."""

    def find_runs(self, query: str) -> list[RunRow]:
        """Runs whose id or uid begins with `query`, or whose name or run folder it is, deleted ones too; complete."""

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        """The range of each metric over its whole history."""

    def names(self, kind: Kind) -> list[str]:
        """Known metrics, experiments, or names and ids of runs: to suggest the nearest one."""


class SqliteRunReader:
    """The `RunReader` of an SQLite store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ServiceUnavailableError(f"{path}: no store found; a run with tracking=mlflow creates it")

    def list_runs(self, *, limit: int, experiment: str | None, status: str | None, sort: str | None) -> list[RunRow]:
        query, order, values = _RUNS, "r.start_time desc", []
        if sort is not None:
            query += "join latest_metrics m on m.run_uuid = r.run_uuid and m.key = ? "
            order = f"m.is_nan, m.value {'asc' if lower_is_better(sort) else 'desc'}, {order}"
            values.append(clean(sort))
        query += "where r.lifecycle_stage = 'active' "
        for column, value in (("e.name", experiment), ("r.status", status)):
            if value is not None:
                query += f"and {column} = ? "
                values.append(value)
        return self._with_metrics(self._query(f"{query} order by {order} limit ?", (*values, limit)))

    def find_runs(self, query: str) -> list[RunRow]:
        where = "where instr(r.run_uuid, ?1) = 1 or r.name = ?1 or instr(uid, ?1) = 1 or folder = ?2"
        values = (query, str(Path(query).absolute()))
        rows = self._query(f"{_RUNS} {where} order by r.start_time desc limit {MAX_MATCHES}", values)
        runs = self._with_metrics(rows)
        for run in runs:
            run.params = dict(self._query("select key, value from params where run_uuid = ?", (run.run_id,)))
            run.tags = dict(self._query("select key, value from tags where run_uuid = ?", (run.run_id,)))
        return runs

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        columns = f"key, count(*), min({_VALUE}), max({_VALUE}), max(step)"
        query = f"select {columns} from metrics where run_uuid = ? group by 1"
        return {
            key: MetricRange(points, _number(low), _number(high), step)
            for key, points, low, high, step in self._query(query, (run_id,))
        }

    def names(self, kind: Kind) -> list[str]:
        return [name for (name,) in self._query(_NAMES[kind]) if name]

    def _with_metrics(self, rows: list[Any]) -> list[RunRow]:
        by_id = {row[0]: RunRow(*row) for row in rows}
        ids = list(by_id)
        for i in range(0, len(ids), MAX_VARIABLES):
            batch = ids[i : i + MAX_VARIABLES]
            variables = ",".join("?" * len(batch))
            query = f"select run_uuid, key, {_VALUE} from latest_metrics where run_uuid in ({variables})"
            for run_id, key, value in self._query(query, batch):
                by_id[run_id].metrics[key] = _number(value)
        return list(by_id.values())

    def _query(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        uri = f"file:{quote(str(self.path))}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
                return database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise ServiceUnavailableError(f"{self.path}: cannot be read as an MLflow store ({error})") from None


def _number(value: float | None) -> float:
    """A stored value: NULL is NaN, and MLflow stores infinities as the largest double."""
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= 1.7976931348623157e308 else float(value)
