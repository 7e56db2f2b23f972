"""Copies the runs of a store that is no SQLite file, through MLflow's client, into a database in memory."""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlxlab.errors import ServiceUnavailableError
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, one_line
from mlxlab.tracking.runs.reader import RunRow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000  # runs of a request: a server needs about 2 ms for each, and has 10 s
MAX_PAGES = 10  # of the newest runs
MAX_REQUESTS = 8  # at a time
_SCHEMA = """
create table experiments (experiment_id, name);
create table runs (run_uuid primary key, name, experiment_id, status, start_time, end_time, lifecycle_stage);
create table latest_metrics (run_uuid, key, value, is_nan, primary key (key, run_uuid));
create table metrics (run_uuid, key, value, is_nan, step);
create index history on metrics (run_uuid, key);
create table params (run_uuid, key, value, primary key (key, run_uuid));
create table tags (run_uuid, key, value, primary key (key, run_uuid));
create table datasets (dataset_uuid, name, digest);
create table inputs (source_type, source_id, destination_type, destination_id);
"""


class ServerRuns:
    """The active runs of a store in `database`, which has the tables of MLflow. Raises ServiceUnavailableError."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._loaded: set[tuple[str, str]] = set()
        self.database = sqlite3.connect(":memory:")
        self.database.executescript(_SCHEMA)
        with self._errors():
            self._client: MlflowClient = MlflowStore(address).client
            experiments = self._client.search_experiments()
            self._insert("experiments", ((each.experiment_id, each.name) for each in experiments))
            self._copy_runs([each.experiment_id for each in experiments])

    def load_histories(self, runs: list[RunRow], keys: list[str]) -> None:
        """Copies the histories of metrics; each is a request."""
        pairs = [(run.run_id, key) for run in runs for key in keys if key in run.metrics]
        requests = [pair for pair in dict.fromkeys(pairs) if pair not in self._loaded]
        with self._errors(), ThreadPoolExecutor(MAX_REQUESTS, "metrics") as pool:
            histories = pool.map(
                lambda request: self._client.get_metric_history(*request), requests
            )
            for pair, history in zip(requests, histories, strict=True):
                rows = [(*pair, *_value(point.value), point.step) for point in history]
                self._insert("metrics", rows)
                self._loaded.add(pair)

    def _copy_runs(self, experiments: list[str]) -> None:
        token = None
        for _ in range(MAX_PAGES):
            newest = ["attributes.start_time DESC"]
            page = self._client.search_runs(
                experiments, max_results=PAGE, order_by=newest, page_token=token
            )
            for run in page:
                self._insert_run(run)
            token = page.token
            if not token:
                return

    def _insert_run(self, run: "Run") -> None:
        info, data, run_id = run.info, run.data, run.info.run_id
        times = (info.start_time, info.end_time)
        row = (run_id, info.run_name, info.experiment_id, info.status, *times, info.lifecycle_stage)
        self._insert("runs", [row])
        metrics = ((run_id, key, *_value(value)) for key, value in data.metrics.items())
        self._insert("latest_metrics", metrics)
        self._insert("params", ((run_id, *item) for item in data.params.items()))
        self._insert("tags", ((run_id, *item) for item in data.tags.items()))
        for number, each in enumerate(run.inputs.dataset_inputs):
            dataset = f"{run_id} {number}"
            self._insert("datasets", [(dataset, each.dataset.name, each.dataset.digest)])
            self._insert("inputs", [("DATASET", dataset, "RUN", run_id)])

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            variables = ", ".join("?" * len(row))
            self.database.execute(f"insert into {table} values ({variables})", row)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Inside, every way in which a store does not answer is a ServiceUnavailableError."""
        try:
            yield
        except Exception as error:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            # ImportError: a database without its driver; OSError: the connection.
            expected = (
                MlflowException,
                SQLAlchemyError,
                StoreUnavailableError,
                ImportError,
                OSError,
            )
            if not isinstance(error, expected):
                raise
            raise ServiceUnavailableError(f"{self._address.shown}: {one_line(error)}") from None


def _value(value: float) -> tuple[float, bool]:
    """(value, is NaN) as MLflow's databases store a number."""
    return (0.0, True) if math.isnan(value) else (value, False)
