"""Reads any other store through MLflow's client: slower than plain SQL, with the same results."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import UID, MlflowStore, clean
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, one_line
from mlxlab.tracking.runs.reader import Kind, MetricRange, RunRow

MAX_SEARCHED = 1000  # newest runs among which `find_runs` looks
MAX_RESULTS = 50_000  # of one search; MLflow refuses more
NEWEST = "attributes.start_time DESC"


class MlflowRunReader:
    """The `RunReader` of a store behind MLflow's client."""

    def __init__(self, address: Address) -> None:
        self.address = address
        with self._errors():
            self._client = MlflowStore(address).client

    def list_runs(self, *, limit: int, experiment: str | None, status: str | None, sort: str | None) -> list[RunRow]:
        order = f"metrics.`{clean(sort)}` {'ASC' if lower_is_better(sort) else 'DESC'}" if sort else NEWEST
        rows = self._search(order, limit, f"attributes.status = '{status}'" if status else "", experiment)
        return [row for row in rows if sort is None or clean(sort) in row.metrics]

    def find_runs(self, query: str) -> list[RunRow]:
        folder = str(Path(query).absolute())

        def matches(run: RunRow) -> bool:
            by_id = run.run_id.startswith(query) or (run.uid or "").startswith(query)
            return by_id or query == run.name or folder == run.folder

        return list(filter(matches, self._search(NEWEST, MAX_SEARCHED)))

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        ranges = {}
        with self._errors():
            for key in self._client.get_run(run_id).data.metrics:
                history = self._client.get_metric_history(run_id, key)
                values = [metric.value for metric in history if not math.isnan(metric.value)] or [math.nan]
                last_step = max(metric.step for metric in history)
                ranges[key] = MetricRange(len(history), min(values), max(values), last_step)
        return ranges

    def names(self, kind: Kind) -> list[str]:
        if kind == "experiments":
            return list(self._experiments().values())
        rows = self._search(NEWEST, MAX_SEARCHED)
        if kind == "runs":
            return [name for row in rows for name in (row.name, row.run_id)]
        return sorted({key for row in rows for key in row.metrics})

    def _search(self, order: str, limit: int, query: str = "", experiment: str | None = None) -> list[RunRow]:
        names = self._experiments()
        ids = [id_ for id_, name in names.items() if experiment in (None, name)]
        if not ids:
            return []
        with self._errors():
            runs = self._client.search_runs(ids, query, max_results=min(limit, MAX_RESULTS), order_by=[order])
        rows = []
        for run in runs:
            info, metrics, params, tags = run.info, *map(dict, (run.data.metrics, run.data.params, run.data.tags))
            head = (info.run_id, info.run_name or "", names[info.experiment_id], info.status)
            origin = (tags.get(UID), tags.get("mlflow.parentRunId"), tags.get("mlxlab.folder"))
            rows.append(RunRow(*head, info.start_time, info.end_time, *origin, metrics, params, tags))
        return rows

    def _experiments(self) -> dict[str, str]:
        with self._errors():
            return {item.experiment_id: item.name for item in self._client.search_experiments()}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Inside, every way in which a store does not answer is a ServiceUnavailableError."""
        try:
            yield
        except Exception as error:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            # ImportError: a database without its driver; OSError: the connection.
            expected = (MlflowException, SQLAlchemyError, StoreUnavailableError, ImportError, OSError)
            if not isinstance(error, expected):
                raise
            raise ServiceUnavailableError(f"{self.address.shown}: {one_line(error)}") from None
