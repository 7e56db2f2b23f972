"""Reads an SQLite store by plain SQL, as MLflow's client needs 2 ms per run."""

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.evaluate import MAX_DOUBLE, add_functions, sql
from mlxlab.tracking.runs.filters import Expression
from mlxlab.tracking.runs.reader import Kind, MetricRange, RunRow

_RUNS = """
select r.run_uuid, coalesce(r.name, ''), e.name, cast(e.experiment_id as text),
       iif(r.lifecycle_stage = 'active', r.status, 'deleted'), r.start_time, r.end_time,
       (select value from tags where run_uuid = r.run_uuid and key = 'mlxlab.uid') as uid,
       (select value from tags where run_uuid = r.run_uuid and key = 'mlflow.parentRunId') as parent,
       (select value from tags where run_uuid = r.run_uuid and key = 'mlxlab.folder') as folder
from runs r join experiments e on e.experiment_id = r.experiment_id
"""
_NAMES = {
    "metrics": "select distinct key from latest_metrics",
    "params": "select distinct key from params",
    "tags": "select distinct key from tags",
    "experiments": "select name from experiments",
    "runs": "select name from runs union select run_uuid from runs",
}
_VALUE = "case when not is_nan then value end"  # MLflow stores NaN as 0
MAX_MATCHES = 20
MAX_VARIABLES = 500  # of one query; SQLite's limit is 999


class SqliteRunReader:
    """The `RunReader` of an SQLite store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ServiceUnavailableError(
                f"{path}: no store found; a run with tracking=mlflow creates it"
            )

    def list_runs(
        self, *, limit: int, where: Expression | None = None, sort: str | None = None
    ) -> list[RunRow]:
        query, order = _RUNS, "r.start_time desc"
        values: list[object] = []
        if sort is not None:
            query += "join latest_metrics m on m.run_uuid = r.run_uuid and m.key = ? "
            order = f"m.is_nan, m.value {'asc' if lower_is_better(sort) else 'desc'}, {order}"
            values.append(clean(sort))
        query += "where r.lifecycle_stage = 'active' "
        if where is not None:
            condition, more = sql(where)
            query += f"and {condition} "
            values += more
        return self._with_metrics(
            self._query(f"{query} order by {order} limit ?", (*values, limit))
        )

    def find_runs(self, query: str) -> list[RunRow]:
        where = (
            "where instr(r.run_uuid, ?1) = 1 or r.name = ?1 or instr(uid, ?1) = 1 or folder = ?2"
        )
        values = (query, str(Path(query).absolute()))
        rows = self._query(
            f"{_RUNS} {where} order by r.start_time desc limit {MAX_MATCHES}", values
        )
        runs = self._with_metrics(rows)
        self.load_params(runs)
        return runs

    def load_params(self, runs: list[RunRow]) -> None:
        by_id = {run.run_id: run for run in runs}
        for run_id, values in self._objects("params", runs):
            by_id[run_id].params = values
        self.load_tags(runs)

    def load_tags(self, runs: list[RunRow]) -> None:
        by_id = {run.run_id: run for run in runs}
        for run_id, values in self._objects("tags", runs):
            by_id[run_id].tags = values

    def _objects(self, table: str, runs: list[RunRow]) -> Iterator[tuple[str, dict[str, str]]]:
        """Run id and the values of a run by key: a row per run takes half the time of a row per value."""
        query = f"select run_uuid, json_group_object(key, value) from {table}"
        for run_id, values in self._of_runs(query, runs, "group by 1"):
            yield run_id, json.loads(values)

    def best_values(self, runs: list[RunRow], metric: str) -> dict[str, float]:
        best = "min" if lower_is_better(metric) else "max"
        query = f"select run_uuid, {best}(value) from metrics where key = ? and not is_nan"
        rows = self._of_runs(query, runs, "group by run_uuid", clean(metric))
        return {run_id: _number(value) for run_id, value in rows}

    def best_evaluations(
        self, runs: list[RunRow], objective: str, keys: list[str]
    ) -> dict[str, dict[str, float]]:
        order = f"value {'asc' if lower_is_better(objective) else 'desc'}, step"
        query = (
            f"with evaluations as (select run_uuid, step, row_number() over (partition by run_uuid order by {order}) "
            "as position from metrics where key = ? and not is_nan"
        )
        ending = (
            f") select run_uuid, key, {_VALUE} from evaluations join metrics using (run_uuid, step) "
            f"where position = 1 and key in ({','.join('?' * len(keys))})"
        )
        best: dict[str, dict[str, float]] = {}
        for run_id, key, value in self._of_runs(query, runs, ending, objective, after=keys):
            best.setdefault(run_id, {})[key] = _number(value)
        return best

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        columns = f"key, count(*), min({_VALUE}), max({_VALUE}), max(step)"
        query = f"select {columns} from metrics where run_uuid = ? group by 1"
        return {
            key: MetricRange(points, _number(low), _number(high), step)
            for key, points, low, high, step in self._query(query, (run_id,))
        }

    def datasets(self, run_id: str) -> dict[str, str]:
        query = (
            "select d.name, d.digest from inputs i join datasets d on d.dataset_uuid = i.source_id "
            "where i.destination_type = 'RUN' and i.source_type = 'DATASET' and i.destination_id = ? order by 1"
        )
        return dict(self._query(query, (run_id,)))

    def names(self, kind: Kind) -> list[str]:
        return [name for (name,) in self._query(_NAMES[kind]) if name]

    def _with_metrics(self, rows: list[Any]) -> list[RunRow]:
        runs = [RunRow(*row) for row in rows]
        by_id = {run.run_id: run for run in runs}
        for run_id, key, value in self._of_runs(
            f"select run_uuid, key, {_VALUE} from latest_metrics", runs
        ):
            by_id[run_id].metrics[key] = _number(value)
        return runs

    def _of_runs(
        self,
        query: str,
        runs: list[RunRow],
        ending: str = "",
        *values: object,
        after: Sequence[object] = (),
    ) -> Iterator[Any]:
        """The rows of these runs in a table, in portions that SQLite takes; `after` are the values of `ending`."""
        word = "and" if " where " in query else "where"
        for i in range(0, len(runs), MAX_VARIABLES):
            ids = [run.run_id for run in runs[i : i + MAX_VARIABLES]]
            variables = ",".join("?" * len(ids))
            yield from self._query(
                f"{query} {word} run_uuid in ({variables}) {ending}", (*values, *ids, *after)
            )

    def _query(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        uri = f"file:{quote(str(self.path))}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
                add_functions(database)
                return database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise ServiceUnavailableError(
                f"{self.path}: cannot be read as an MLflow store ({error})"
            ) from None


def _number(value: float | None) -> float:
    """A stored value: NULL is NaN, and MLflow stores infinities as the largest double."""
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= MAX_DOUBLE else float(value)
