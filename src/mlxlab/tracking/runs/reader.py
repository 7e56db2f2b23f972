"""The interface of a store that is read, and the rows it returns."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Kind = Literal["metrics", "experiments", "runs"]


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
        """Runs whose id or uid begins with `query`, or whose name or run folder it is, with all details; deleted ones
        too."""

    def metric_ranges(self, run_id: str) -> dict[str, MetricRange]:
        """The range of each metric over its whole history."""

    def names(self, kind: Kind) -> list[str]:
        """Known metrics, experiments, or names and ids of runs: to suggest the nearest one."""
