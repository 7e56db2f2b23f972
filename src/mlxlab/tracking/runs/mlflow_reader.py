"""Reads runs out of any other store through MLflow's client: slower, the same answers."""

from collections.abc import Iterable
from typing import Any

from mlxlab.errors import ServiceUnavailableError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import UID, MlflowStore
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, one_line
from mlxlab.tracking.runs.sqlite_reader import RunRow

MANY = 1000  # runs looked at


class MlflowRunReader:
    """A store behind MLflow's client. The methods are those of `query.Database`.

    Raises:
        ServiceUnavailableError: it does not answer.
    """

    def __init__(self, address: Address) -> None:
        try:
            self._client = MlflowStore(address).client
        except (StoreUnavailableError, Exception) as error:
            raise ServiceUnavailableError(f"{address.shown}: {one_line(error)}") from None

    def newest(self, *, limit: int, experiment: str | None, status: str | None, sort: str | None) -> list[RunRow]:
        words = [f"attributes.status = '{status}'"] if status else []
        order = (
            [f"metrics.`{sort}` {'ASC' if lower_is_better(sort) else 'DESC'}"]
            if sort
            else ["attributes.start_time DESC"]
        )
        names = [experiment] if experiment else None
        return self._search(" and ".join(words), order, limit, names)

    def matching(self, word: str) -> list[RunRow]:
        rows = self._search("", ["attributes.start_time DESC"], MANY, None)
        return [row for row in rows if word in (row.name, row.folder) or _begins(row, word)]

    def complete(self, rows: Iterable[RunRow]) -> None:
        """Rows come complete."""

    def spans(self, run_id: str) -> dict[str, tuple[int, float, float, int]]:
        spans = {}
        for key in self._client.get_run(run_id).data.metrics:
            history = self._client.get_metric_history(run_id, key)
            values = [metric.value for metric in history]
            spans[key] = (len(history), min(values), max(values), max(metric.step for metric in history))
        return spans

    def names(self, what: str) -> list[str]:
        if what == "experiments":
            return [found.name for found in self._client.search_experiments()]
        rows = self._search("", ["attributes.start_time DESC"], 100, None)
        if what == "runs":
            return [name for row in rows for name in (row.name, row.run_id)]
        return sorted({key for row in rows for key in row.metrics})

    def _search(self, words: str, order: list[str], limit: int, names: list[str] | None) -> list[RunRow]:
        by_id = {found.experiment_id: found.name for found in self._client.search_experiments()}
        ids = [id_ for id_, name in by_id.items() if names is None or name in names]
        found = self._client.search_runs(ids, words, max_results=limit, order_by=order) if ids else []
        return [_row(run, by_id[run.info.experiment_id]) for run in found]


def _row(run: Any, experiment: str) -> RunRow:
    info, tags = run.info, run.data.tags
    row = RunRow(info.run_id, info.run_name or "", experiment, info.status, info.start_time, info.end_time)
    row.uid, row.parent, row.folder = tags.get(UID), tags.get("mlflow.parentRunId"), tags.get("mlxlab.folder")
    row.metrics, row.params, row.tags = dict(run.data.metrics), dict(run.data.params), dict(tags)
    return row


def _begins(row: RunRow, word: str) -> bool:
    return row.run_id.startswith(word) or (row.uid or "").startswith(word)
