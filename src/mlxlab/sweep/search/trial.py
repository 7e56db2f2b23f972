"""A trial of a search: a point of the search space, its state and its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mlxlab.config.hydra.search_space import Point
from mlxlab.constraints import Count, NonNegative, Size
from mlxlab.training.stop_rule import Stop

State = Literal["running", "stopped", "paused", "pruned", "finished", "failed"]


@dataclass(frozen=True)
class Result:
    """What one job of a trial came to: its whole run, or the part of it up to a rung."""

    order: Count  # position among all results of the study, as they arrived
    budget: Size | None  # at which the job was to pause; None: at the end of the run
    values: list[float]  # of the objectives, by the best evaluation so far; none if it failed
    step: Count = 0  # of the optimizer


@dataclass(frozen=True)
class Trial:
    """One point of the search space and what came of it. The states are explained in docs/how_to/sweeps.md."""

    number: int
    point: Point
    state: State = "running"
    values: list[float] = field(default_factory=list)  # of the objectives; none while it runs
    reason: str = ""  # why it failed, or was pruned
    seconds: NonNegative = 0.0
    same_as: int | None = (
        None  # an earlier trial with the same point, whose state and values this one has
    )
    budget: Size | None = None  # at which its last job pauses
    limits: list[float | None] = field(default_factory=list)  # `StopRule.limits` of that job
    known: Count = 0  # results that the study had when the trial was proposed
    results: list[Result] = field(default_factory=list)  # of its jobs
    evaluations: list[float | None] = field(
        default_factory=list
    )  # the objective; None is not finite

    @property
    def is_ended(self) -> bool:
        """Whether it has a result: also one that is paused, and may be promoted."""
        return self.state not in ("running", "stopped")

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self.results[-1].step if self.results else 0


class TrialResult(NamedTuple):
    """The values of the objectives, or the reason why there are none; where a pruner is at work, also the way there."""

    values: list[float]
    reason: str = ""
    state: Stop | Literal["finished"] = "finished"
    step: int = 0
    evaluations: Sequence[float | None] = ()
    seconds: float = 0.0  # of all attempts, as far as its run folder has them
