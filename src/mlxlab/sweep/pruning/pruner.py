"""The interface of a pruner, the one that stops nothing, and the rule of the median."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, Protocol

from mlxlab.sweep.search.optuna_sampler import Direction
from mlxlab.sweep.search.trial import Trial
from mlxlab.training.stop_rule import MAX_LIMITS

Limits = list[float | None]
MIN_CURVES = 5  # finished trials of which a median is taken


class Promotion(NamedTuple):
    """A paused trial that continues, and the budget at which it pauses again; None: at the end of its run."""

    trial: Trial
    budget: int | None


class Pruner(Protocol):
    """Decides from the trials so far, without a state of its own: a continued search decides the same."""

    def first_budget(self, number: int) -> int | None:
        """The budget at which trial `number` pauses first; None if it never does."""

    def limits(self, trials: Sequence[Trial]) -> Limits:
        """The `limits` of the `StopRule` of a trial that starts now."""

    def promotion(self, trials: Sequence[Trial], *, is_last: bool) -> Promotion | None:
        """The next paused trial to continue, if there is one; `is_last` if no trial runs and none will be added."""


class NoPruner:
    """Trains every trial to its end."""

    def first_budget(self, number: int) -> int | None:
        return None

    def limits(self, trials: Sequence[Trial]) -> Limits:
        return []

    def promotion(self, trials: Sequence[Trial], *, is_last: bool) -> Promotion | None:
        return None


class MedianPruner:
    """Prunes a trial whose best value is worse than the median of earlier trials at the same evaluation.

    The rule of Golovin et al. 2017 (Google Vizier) with best values in place of running averages. The trials are those
    that were complete when the trial started, so that its fate does not depend on the others that run.
    """

    def __init__(self, direction: Direction) -> None:
        self.best = min if direction == "minimize" else max

    def first_budget(self, number: int) -> int | None:
        return None

    def limits(self, trials: Sequence[Trial]) -> Limits:
        curves = [
            trial.evaluations
            for trial in trials
            if trial.state == "finished" and trial.same_as is None
        ]
        length = max(map(len, curves), default=0)
        return [self._limit(curves, end) for end in range(1, min(length, MAX_LIMITS) + 1)]

    def promotion(self, trials: Sequence[Trial], *, is_last: bool) -> Promotion | None:
        return None

    def _limit(self, curves: list[Limits], end: int) -> float | None:
        """The median of the best values of the first `end` evaluations; None of too few trials."""
        reached = [
            [value for value in curve[:end] if value is not None]
            for curve in curves
            if len(curve) >= end
        ]
        values = [self.best(each) for each in reached if each]
        return median(values) if len(values) >= MIN_CURVES else None
