"""Reads any other store through MLflow's client: slower than plain SQL, with the same results."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import UID, MlflowStore, clean
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, one_line
from mlxlab.tracking.runs.evaluate import matches
from mlxlab.tracking.runs.filters import Expression
from mlxlab.tracking.runs.reader import Kind, MetricRange, RunRow

if TYPE_CHECKING:
    from mlflow.entities import Metric

MAX_REQUESTS = 8  # at a time
MAX_SEARCHED = 1000  # newest runs among which `find_runs` looks
MAX_RESULTS = 50_000  # of one search; MLflow refuses more
NEWEST = "attributes.start_time DESC"


class MlflowRunReader:
    """The `RunReader` of a store behind MLflow's client."""

    def __init__(self, address: Address) -> None:
        self.address = address
        with self._errors():
            self._client = MlflowStore(address).client

    def list_runs(
        self, *, limit: int, where: Expression | None = None, sort: str | None = None
    ) -> list[RunRow]:
        order = (
            f"metrics.`{clean(sort)}` {'ASC' if lower_is_better(sort) else 'DESC'}"
            if sort
            else NEWEST
        )
        # MLflow's own filters know no `or`, no parentheses and no numbers in parameters.
        rows = self._search(order, MAX_RESULTS if where else limit)
        rows = [row for row in rows if where is None or matches(where, row)]
        return [row for row in rows if sort is None or clean(sort) in row.metrics][:limit]

    def find_runs(self, query: str) -> list[RunRow]:
        folder = str(Path(query).absolute())

        def matches(run: RunRow) -> bool:
            by_id = run.run_id.startswith(query) or (run.uid or "").startswith(query)
            return by_id or query == run.name or folder == run.folder

        return list(filter(matches, self._search(NEWEST, MAX_SEARCHED)))

    def load_params(self, runs: list[RunRow]) -> None:
        """Nothing to do: they came with the runs."""

    def load_tags(self, runs: list[RunRow]) -> None:
        """Nothing to do: they came with the runs."""

    def best_values(self, runs: list[RunRow], metric: str) -> dict[str, float]:
        best, key, values = (min if lower_is_better(metric) else max), clean(metric), {}
        for run_id, histories in self._histories(runs, [key]).items():
            if finite := [point.value for point in histories[key] if not math.isnan(point.value)]:
                values[run_id] = best(finite)
        return values

    def best_evaluations(
        self, runs: list[RunRow], objective: str, keys: list[str]
    ) -> dict[str, dict[str, float]]:
        sign, best = (1 if lower_is_better(objective) else -1), {}
        evaluated = [run for run in runs if objective in run.metrics]
        for run_id, histories in self._histories(evaluated, [objective, *keys]).items():
            values = {
                key: {point.step: point.value for point in points}
                for key, points in histories.items()
            }
            steps = [
                (sign * value, step)
                for step, value in values[objective].items()
                if not math.isnan(value)
            ]
            if steps:
                _, step = min(steps)
                best[run_id] = {
                    key: values[key][step] for key in keys if step in values.get(key, {})
                }
        return best

    def _histories(
        self, runs: list[RunRow], keys: list[str]
    ) -> dict[str, dict[str, "list[Metric]"]]:
        """Run id -> key -> history, of the runs that have one; each is a request."""
        requests = [
            (run.run_id, key) for run in runs for key in dict.fromkeys(keys) if key in run.metrics
        ]
        histories: dict[str, dict[str, list[Metric]]] = {}
        with self._errors(), ThreadPoolExecutor(MAX_REQUESTS, "metrics") as pool:
            points = pool.map(lambda request: self._client.get_metric_history(*request), requests)
            for (run_id, key), history in zip(requests, points, strict=True):
                histories.setdefault(run_id, {})[key] = history
        return histories

    def datasets(self, run_id: str) -> dict[str, str]:
        with self._errors():
            inputs = self._client.get_run(run_id).inputs.dataset_inputs
        return dict(sorted((each.dataset.name, each.dataset.digest) for each in inputs))

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        ranges = {}
        with self._errors():
            for key in self._client.get_run(run_id).data.metrics:
                history = self._client.get_metric_history(run_id, key)
                values = [metric.value for metric in history if not math.isnan(metric.value)] or [
                    math.nan
                ]
                last_step = max(metric.step for metric in history)
                ranges[key] = MetricRange(len(history), min(values), max(values), last_step)
        return ranges

    def names(self, kind: Kind) -> list[str]:
        if kind == "experiments":
            return list(self._experiments().values())
        rows = self._search(NEWEST, MAX_SEARCHED)
        if kind == "runs":
            return [name for row in rows for name in (row.name, row.run_id)]
        fields = {
            "metrics": lambda row: row.metrics,
            "params": lambda row: row.params,
            "tags": lambda row: row.tags,
        }
        return sorted({key for row in rows for key in fields[kind](row)})

    def _search(self, order: str, limit: int) -> list[RunRow]:
        names = self._experiments()
        if not names:
            return []
        with self._errors():
            runs = self._client.search_runs(
                [*names], max_results=min(limit, MAX_RESULTS), order_by=[order]
            )
        rows = []
        for run in runs:
            info, metrics, params, tags = (
                run.info,
                *map(dict, (run.data.metrics, run.data.params, run.data.tags)),
            )
            head = (
                info.run_id,
                info.run_name or "",
                names[info.experiment_id],
                info.experiment_id,
                info.status,
            )
            origin = (tags.get(UID), tags.get("mlflow.parentRunId"), tags.get("mlxlab.folder"))
            rows.append(
                RunRow(*head, info.start_time, info.end_time, *origin, metrics, params, tags)
            )
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
            expected = (
                MlflowException,
                SQLAlchemyError,
                StoreUnavailableError,
                ImportError,
                OSError,
            )
            if not isinstance(error, expected):
                raise
            raise ServiceUnavailableError(f"{self.address.shown}: {one_line(error)}") from None
