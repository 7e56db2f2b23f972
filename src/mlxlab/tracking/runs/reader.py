"""Runs as they are read out of a store, and the interface of their readers."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from mlxlab.tracking.runs.filters import Expression

Kind = Literal["metrics", "params", "tags", "experiments", "runs"]


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
    best: dict[str, float] = field(
        default_factory=dict
    )  # of the best evaluation by the objective; see `load_best`

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


class RunReader(Protocol):
    """Reads runs out of a store. Every method raises ServiceUnavailableError if the store cannot be read."""

    def list_runs(
        self, *, limit: int, where: Expression | None = None, sort: str | None = None
    ) -> list[RunRow]:
        """The newest runs first, or the best first by the latest value of the metric `sort`; with their metrics.

        Those without `sort` are left out, as are deleted ones.
        """

    def find_runs(self, query: str) -> list[RunRow]:
        """Runs whose id or uid begins with `query`, or whose name or run folder it is, deleted ones too; complete."""

    def load_params(self, runs: list[RunRow]) -> None:
        """Adds parameters and tags to listed runs."""

    def load_tags(self, runs: list[RunRow]) -> None:
        """Adds only tags, which are few."""

    def best_values(self, runs: list[RunRow], metric: str) -> dict[str, float]:
        """Run id -> best value of a metric over its whole history, without NaN; of the runs that have one."""

    def best_evaluations(
        self, runs: list[RunRow], objective: str, keys: list[str]
    ) -> dict[str, dict[str, float]]:
        """Run id -> the metrics `keys` of the first evaluation with the best value of the objective."""

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        """The range of each metric over its whole history."""

    def datasets(self, run_id: str) -> dict[str, str]:
        """Name -> digest of the data sets that a run used."""

    def names(self, kind: Kind) -> list[str]:
        """Known metrics, parameters, tags, experiments, or names and ids of runs: to suggest the nearest one."""
