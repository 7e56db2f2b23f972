"""Reads runs out of an SQLite store by plain SQL, as MLflow's client needs seconds to be imported and 2 ms per run."""

import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.client import clean
from mlxlab.tracking.runs.filters import MAX_DOUBLE, Filter, number

Kind = Literal["metrics", "params", "tags", "experiments", "runs"]

MAX_MATCHES = 20
MAX_VARIABLES = 500  # of one query; SQLite's limit is 999

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


@dataclass
class RunRow:
    """A run in a store, or as its folder describes it. Times in ms since 1970."""

    run_id: str
    name: str
    experiment: str
    experiment_id: str
    status: str
    start: int | None
    end: int | None
    uid: str | None  # of its journal
    parent: str | None  # run id
    folder: str | None
    metrics: dict[str, float] = field(default_factory=dict)  # latest values
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    # Of the best evaluation by the objective; see `load_best`.
    best: dict[str, float] = field(default_factory=dict)

    @property
    def short_id(self) -> str:
        """As a run shows it while it trains; every command accepts it, as it does the run id that MLflow gave it."""
        return (self.uid or self.run_id)[:8]

    @property
    def is_stored(self) -> bool:
        """False if it was read from its run folder."""
        return self.experiment_id != ""


class MetricRange(NamedTuple):
    """The history of one metric. `min` and `max` ignore NaN, and are NaN if there is nothing else."""

    points: int
    min: float
    max: float
    last_step: int


def open_store(path: Path) -> sqlite3.Connection:
    """An SQLite store, to be read only."""
    if not path.is_file():
        raise ServiceUnavailableError(
            f"{path}: no store found; a run with tracking=mlflow creates it"
        )
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)


class RunReader:
    """Reads runs. Every method raises ServiceUnavailableError if the store cannot be read.

    Args:
        database: with the tables of MLflow.
        name: of the store, for messages.
        load_histories: called with runs and metrics before their histories are read.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        name: str,
        load_histories: Callable[[list[RunRow], list[str]], None] | None = None,
    ) -> None:
        self._database, self._name = database, name
        self._load_histories = load_histories
        database.create_function("number", 1, number, deterministic=True)

    def list_runs(
        self, *, limit: int, where: Filter | None = None, sort: str | None = None
    ) -> list[RunRow]:
        """The newest runs first, or the best first by the latest value of the metric `sort`; with their metrics.

        Those without `sort` are left out, as are deleted ones.
        """
        query, order = _RUNS, "r.start_time desc"
        values: list[object] = []
        if sort is not None:
            query += "join latest_metrics m on m.run_uuid = r.run_uuid and m.key = ? "
            order = f"m.is_nan, m.value {_direction(sort)}, {order}"
            values.append(clean(sort))
        query += "where r.lifecycle_stage = 'active' "
        if where is not None:
            query += f"and {where.sql} "
            values += where.values
        rows = self._query(f"{query} order by {order} limit ?", (*values, limit))
        return self._with_metrics(rows)

    def find_runs(self, query: str) -> list[RunRow]:
        """Runs whose id or uid begins with `query`, or whose name or run folder it is, deleted ones too; complete."""
        where = (
            "where instr(r.run_uuid, ?1) = 1 or r.name = ?1 or instr(uid, ?1) = 1 or folder = ?2"
        )
        sql = f"{_RUNS} {where} order by r.start_time desc limit {MAX_MATCHES}"
        runs = self._with_metrics(self._query(sql, (query, str(Path(query).absolute()))))
        self.load_params(runs)
        return runs

    def load_params(self, runs: list[RunRow]) -> None:
        """Adds parameters and tags to listed runs."""
        for run, values in self._objects("params", runs):
            run.params = values
        self.load_tags(runs)

    def load_tags(self, runs: list[RunRow]) -> None:
        """Adds only tags, which are few."""
        for run, values in self._objects("tags", runs):
            run.tags = values

    def best_values(self, runs: list[RunRow], metric: str) -> dict[str, float]:
        """Run id -> best value of a metric over its whole history, without NaN; of the runs that have one."""
        self._need_histories(runs, [metric])
        best = "min" if lower_is_better(metric) else "max"
        query = f"select run_uuid, {best}(value) from metrics where key = ? and not is_nan"
        rows = self._of_runs(query, runs, "group by run_uuid", clean(metric))
        return {run_id: _number(value) for run_id, value in rows}

    def best_evaluations(
        self, runs: list[RunRow], objective: str, keys: list[str]
    ) -> dict[str, dict[str, float]]:
        """Run id -> the metrics `keys` of the first evaluation with the best value of the objective."""
        evaluated = [run for run in runs if objective in run.metrics]
        self._need_histories(evaluated, [objective, *keys])
        order = f"value {_direction(objective)}, step"
        query = (
            f"with evaluations as (select run_uuid, step, row_number() over (partition by run_uuid order by {order}) "
            "as position from metrics where key = ? and not is_nan"
        )
        ending = (
            f") select run_uuid, key, {_VALUE} from evaluations join metrics using (run_uuid, step) "
            f"where position = 1 and key in ({','.join('?' * len(keys))})"
        )
        best: dict[str, dict[str, float]] = {}
        for run_id, key, value in self._of_runs(query, evaluated, ending, objective, after=keys):
            best.setdefault(run_id, {})[key] = _number(value)
        return best

    def metric_ranges(self, run: RunRow) -> dict[str, MetricRange]:
        """The range of each metric over its whole history."""
        self._need_histories([run], list(run.metrics))
        columns = f"key, count(*), min({_VALUE}), max({_VALUE}), max(step)"
        query = f"select {columns} from metrics where run_uuid = ? group by 1"
        return {
            key: MetricRange(points, _number(low), _number(high), step)
            for key, points, low, high, step in self._query(query, (run.run_id,))
        }

    def datasets(self, run: RunRow) -> dict[str, str]:
        """Name -> digest of the data sets that a run used."""
        query = (
            "select d.name, d.digest from inputs i join datasets d on d.dataset_uuid = i.source_id "
            "where i.destination_type = 'RUN' and i.source_type = 'DATASET' and i.destination_id = ? order by 1"
        )
        return dict(self._query(query, (run.run_id,)))

    def names(self, kind: Kind) -> list[str]:
        """Known metrics, parameters, tags, experiments, or names and ids of runs."""
        return [name for (name,) in self._query(_NAMES[kind]) if name]

    def _need_histories(self, runs: list[RunRow], keys: list[str]) -> None:
        if self._load_histories is not None:
            self._load_histories(runs, [clean(key) for key in keys])

    def _with_metrics(self, rows: list[Any]) -> list[RunRow]:
        runs = [RunRow(*row) for row in rows]
        by_id = {run.run_id: run for run in runs}
        query = f"select run_uuid, key, {_VALUE} from latest_metrics"
        for run_id, key, value in self._of_runs(query, runs):
            by_id[run_id].metrics[key] = _number(value)
        return runs

    def _objects(self, table: str, runs: list[RunRow]) -> Iterator[tuple[RunRow, dict[str, str]]]:
        """The values of each run by key: a row per run takes half the time of a row per value."""
        by_id = {run.run_id: run for run in runs}
        query = f"select run_uuid, json_group_object(key, value) from {table}"
        for run_id, values in self._of_runs(query, runs, "group by 1"):
            yield by_id[run_id], json.loads(values)

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
            sql = f"{query} {word} run_uuid in ({variables}) {ending}"
            yield from self._query(sql, (*values, *ids, *after))

    def _query(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise ServiceUnavailableError(
                f"{self._name}: cannot be read as an MLflow store ({error})"
            ) from None


def _direction(metric: str) -> str:
    """In which the best value comes first."""
    return "asc" if lower_is_better(metric) else "desc"


def _number(value: float | None) -> float:
    """A stored value: NULL is NaN, and MLflow stores infinities as the largest double."""
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= MAX_DOUBLE else float(value)
