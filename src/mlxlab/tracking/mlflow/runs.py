"""Runs of a store: listed and found in MLflow's filter language, and compared."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mlxlab.errors import ConfigError
from mlxlab.schema.metric_names import lower_is_better
from mlxlab.tracking.mlflow.names import clean
from mlxlab.tracking.one_line import mlflow_errors
from mlxlab.tracking.tracker import OBJECTIVE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000  # runs of a request: a server needs about 2 ms for each, and has 10 s
MAIN = (
    "accuracy",
    "loss",
    "perplexity",
    "bits_per_byte",
    "r2",
    "rmse",
    "f1_macro",
    "roc_auc",
)  # metrics that are shown first
_CODE = ("version.", "mlflow.source.git.")  # prefixes of tags
_HEXADECIMAL = re.compile("[0-9a-f]+")

Values: TypeAlias = Mapping[str, Any]
Pairs: TypeAlias = dict[str, tuple[Any, Any]]  # the values of both runs, None where one has none
Difference: TypeAlias = dict[str, Pairs]


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
    seconds: float | None  # It worked for so long; None while that is not known.
    uid: str | None  # id in its journal
    parent: str | None  # run id
    folder: str | None
    metrics: dict[str, float] = field(default_factory=dict)  # latest values
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    # Metrics of the best evaluation by the objective, which only a run folder knows.
    best: dict[str, float] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)  # name -> digest

    @property
    def short_id(self) -> str:
        """The id that a run shows while it trains; every command accepts it, as it does the run id that MLflow gave it."""
        return (self.uid or self.run_id)[:8]

    @property
    def objective(self) -> str | None:
        """The key of the metric in the store; None if the run has none."""
        if OBJECTIVE in self.tags:
            return clean(self.tags[OBJECTIVE])
        return None


class RunReader:
    """Reads runs. Every method raises ServiceUnavailableError if the store cannot be read.

    Args:
        client: of MLflow.
        name: of the store, for messages.
    """

    def __init__(self, client: "MlflowClient", name: str) -> None:
        self._client = client
        self._name = name
        with mlflow_errors(self._name):
            experiments = client.search_experiments()
        self.experiments = {each.experiment_id: each.name for each in experiments}

    def list_runs(
        self,
        *,
        limit: int,
        where: str = "",
        experiment: str | None = None,
        sort: str | None = None,
        deleted: bool = False,
    ) -> list[RunRow]:
        """The newest runs first, or the best first by the latest value of the metric `sort`, which all then have.

        Args:
            where: a filter in MLflow's language.
            deleted: deleted runs too.
        """
        from mlflow.entities import ViewType

        ids = [key for key, name in self.experiments.items() if experiment in (None, name)]
        if not ids:
            raise ConfigError(f"experiment={experiment}: not in the store")
        order = ["attributes.start_time DESC"]
        if sort is not None:
            direction = "ASC" if lower_is_better(sort) else "DESC"
            order.insert(0, f"metrics.`{clean(sort)}` {direction}")
        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        runs: list[Run] = []
        token = None
        with mlflow_errors(self._name):
            while len(runs) < limit:
                size = min(PAGE, limit - len(runs))
                page = self._client.search_runs(ids, where, view, size, order, token)
                runs += page
                token = page.token
                if not token:
                    break
        return [self._row(run) for run in runs if sort is None or clean(sort) in run.data.metrics]

    def find_runs(self, query: str) -> list[RunRow]:
        """Runs whose id or uid begins with `query`, or whose name or run folder it is, deleted ones too."""
        if "'" in query:
            return []
        conditions = [
            f"attributes.run_name = '{query}'",
            f"tags.`mlxlab.folder` = '{Path(query).absolute()}'",
        ]
        if _HEXADECIMAL.fullmatch(query):  # Others have wildcards of LIKE.
            keys = ("attributes.run_id", "tags.`mlxlab.uid`")
            conditions += [f"{key} LIKE '{query}" + "%'" for key in keys]
        matches: dict[str, RunRow] = {}
        for condition in conditions:
            for run in self.list_runs(limit=20, where=condition, deleted=True):
                matches[run.run_id] = run
        return list(matches.values())

    def _row(self, run: "Run") -> RunRow:
        info = run.info
        tags = run.data.tags
        seconds = None
        if info.end_time is not None:
            seconds = max(0, info.end_time - info.start_time) / 1000
        inputs = run.inputs.dataset_inputs if run.inputs else []
        return RunRow(
            run_id=info.run_id,
            name=info.run_name or "",
            experiment=self.experiments[info.experiment_id],
            experiment_id=info.experiment_id,
            status=info.status if info.lifecycle_stage == "active" else "deleted",
            start=info.start_time,
            end=info.end_time,
            seconds=seconds,
            uid=tags.get("mlxlab.uid"),
            parent=tags.get("mlflow.parentRunId"),
            folder=tags.get("mlxlab.folder"),
            metrics={key: _number(value) for key, value in run.data.metrics.items()},
            params=dict(run.data.params),
            tags=dict(tags),
            datasets={each.dataset.name: each.dataset.digest for each in inputs},
        )


def diff(first: RunRow, second: RunRow) -> Difference:
    """What differs between two runs. The code is compared by what is known of both.

    All metrics are given: `best` has the main ones of the best evaluations, `metrics` the latest values.
    """
    tags = _changes(first.tags, second.tags)
    return {
        "config": _changes(first.params, second.params),
        "data": _changes(first.datasets, second.datasets),
        "code": {key: tags[key] for key in tags if key.startswith(_CODE) and None not in tags[key]},
        "best": _pairs(first.best, second.best),
        "metrics": _pairs(first.metrics, second.metrics),
    }


def _changes(first: Values, second: Values) -> Pairs:
    pairs = _pairs(first, second)
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _pairs(first: Values, second: Values) -> Pairs:
    return {key: (first.get(key), second.get(key)) for key in sorted({*first, *second})}


def _number(value: float) -> float:
    """A stored value: MLflow stores infinities as the largest double."""
    if abs(value) >= sys.float_info.max:
        return math.copysign(math.inf, value)
    return float(value)
