"""Reads runs out of an SQLite store with plain SQL: read-only, and without MLflow (which needs 2 ms a run)."""

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.naming import clean

_RUNS = """
select r.run_uuid, r.name, e.name, r.status, r.start_time, r.end_time, r.lifecycle_stage,
       max(case when t.key = 'mlxlab.uid' then t.value end),
       max(case when t.key = 'mlflow.parentRunId' then t.value end),
       max(case when t.key = 'mlxlab.folder' then t.value end)
from runs r join experiments e on e.experiment_id = r.experiment_id
left join tags t on t.run_uuid = r.run_uuid and t.key in ('mlxlab.uid', 'mlflow.parentRunId', 'mlxlab.folder')
"""


@dataclass
class RunRow:
    """A run as the store knows it. Times in ms since 1970."""

    run_id: str
    name: str
    experiment: str
    status: str
    start: int | None
    end: int | None
    uid: str | None = None
    parent: str | None = None  # run id
    folder: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # latest values
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class SqliteRunReader:
    """An SQLite store, opened for reading.

    Raises:
        ServiceUnavailableError: there is no such file, or it is no MLflow store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ServiceUnavailableError(f"{path}: no store there yet; a run with tracking=mlflow makes it")

    def newest(self, *, limit: int, experiment: str | None, status: str | None, sort: str | None) -> list[RunRow]:
        """The newest runs first, or by the metric `sort`: losses ascending, everything else descending."""
        where, values = ["r.lifecycle_stage = 'active'"], []
        for column, value in (("e.name", experiment), ("r.status", status)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        join, order = "", "r.start_time desc"
        if sort is not None:
            join = f"join latest_metrics m on m.run_uuid = r.run_uuid and m.key = {_quoted(sort)}"
            order = f"m.is_nan, m.value {'asc' if lower_is_better(sort) else 'desc'}, r.start_time desc"
        tail = f"{join} where {' and '.join(where)} group by r.run_uuid order by {order} limit ?"
        rows = self._rows(tail, (*values, limit))
        self._add("metrics", rows)
        return rows

    def matching(self, word: str) -> list[RunRow]:
        """Runs whose id or uid begins with `word`, whose name is `word`, or whose run folder it is."""
        path = str(Path(word).absolute())
        tail = (
            "where r.run_uuid like ? or r.name = ? or exists (select 1 from tags x where x.run_uuid = r.run_uuid and "
            "(x.key = 'mlxlab.uid' and x.value like ? or x.key = 'mlxlab.folder' and x.value = ?)) "
            "group by r.run_uuid order by r.start_time desc limit 20"
        )
        begin = word.replace("%", "").replace("_", "") + "%"
        return self._rows(tail, (begin, word, begin, path))

    def complete(self, rows: Iterable[RunRow]) -> None:
        """Adds params, tags and metrics to the rows."""
        found = list(rows)
        for kind in ("metrics", "params", "tags"):
            self._add(kind, found)

    def spans(self, run_id: str) -> dict[str, tuple[int, float, float, int]]:
        """metric -> (rows, smallest, largest, last step), over the whole history."""
        query = "select key, count(*), min(value), max(value), max(step) from metrics where run_uuid = ? group by key"
        return {key: (count, low, high, step) for key, count, low, high, step in self._ask(query, (run_id,))}

    def names(self, what: str) -> list[str]:
        """All names of `metrics`, `experiments` or `runs`: for the nearest one to a wrong word."""
        query = {
            "metrics": "select distinct key from latest_metrics",
            "experiments": "select name from experiments",
            "runs": "select name from runs union select run_uuid from runs",
        }[what]
        return [name for (name,) in self._ask(query) if name]

    def _rows(self, tail: str, values: tuple[object, ...]) -> list[RunRow]:
        rows = []
        for run_id, name, experiment, status, start, end, stage, uid, parent, folder in self._ask(_RUNS + tail, values):
            state = status if stage == "active" else "deleted"
            rows.append(RunRow(run_id, name or "", experiment, state, start, end, uid, parent, folder))
        return rows

    def _add(self, kind: str, rows: list[RunRow]) -> None:
        by_id = {row.run_id: row for row in rows}
        ids = list(by_id)
        columns = (
            "run_uuid, key, case when is_nan then 'nan' else value end" if kind == "metrics" else "run_uuid, key, value"
        )
        table = "latest_metrics" if kind == "metrics" else kind
        for i in range(0, len(ids), 500):  # SQLite's limit of variables
            part = ids[i : i + 500]
            marks = ",".join("?" * len(part))
            for run_id, key, value in self._ask(f"select {columns} from {table} where run_uuid in ({marks})", part):
                getattr(by_id[run_id], kind)[key] = _number(value) if kind == "metrics" else value

    def _ask(self, query: str, values: Iterable[object] = ()) -> list[tuple]:
        address = f"file:{quote(str(self.path))}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=5)) as database:
                return database.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise ServiceUnavailableError(f"{self.path} cannot be read as an MLflow store: {error}") from None


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    return math.copysign(math.inf, number) if abs(number) >= 1.7976931348623157e308 else number  # as MLflow stores it


def _quoted(key: str) -> str:
    return f"'{clean(key)}'"  # has no quote: see `clean`
