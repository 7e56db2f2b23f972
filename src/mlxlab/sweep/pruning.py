"""Which trials of a search stop early, and which of them continue.

Asynchronous successive halving (ASHA, Li et al. 2020), Hyperband over its brackets, and the rule of the median. Optuna's
own pruners end a trial for good; here one pauses at its rung, and the best continue from their checkpoints.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from omegaconf import DictConfig

from mlxlab.config.hydra.search_space import Domain
from mlxlab.data.dataset import AUTO_EPOCHS
from mlxlab.errors import ConfigError
from mlxlab.sweep.settings import SearchSettings
from mlxlab.sweep.study import Direction, Trial
from mlxlab.training.stop_rule import MAX_LIMITS, StopRule, Unit

LENGTHS: dict[Unit, str] = {"steps": "trainer.max_steps", "epochs": "trainer.epochs"}
MIN_CURVES = 5  # finished trials of which a median is taken
_NUM_RUNGS = 3  # below the end of a run, where no smallest budget is set

Rungs = list[int | None]  # budgets in ascending order; the last is None, the end of the run

logger = logging.getLogger(__name__)


class Promotion(NamedTuple):
    """A paused trial that continues, and the budget at which it pauses again; None: at the end of its run."""

    number: int
    budget: int | None


class SuccessiveHalving:
    """Promotes the best trial of the highest rung that has one, else a new trial starts (Algorithm 2 of ASHA).

    It decides from the trials alone, so a continued search decides the same. Before a search ends it promotes, from
    the highest rung, as long as no trial has reached the end of its run.

    Args:
        budgets: of the rungs below the end of the run, ascending.
        factor: one trial in as many is promoted.
        sign: 1 if the objective is minimised, else -1.
        num_brackets: bracket k skips the first k rungs; 1 is ASHA. Trials are distributed over several brackets as
            Hyperband (Li et al. 2018) does.
    """

    def __init__(
        self, budgets: Sequence[int] = (), factor: int = 3, sign: int = 1, num_brackets: int = 1
    ) -> None:
        self.factor = factor
        self.sign = sign
        self.brackets: list[Rungs] = [[*budgets[start:], None] for start in range(num_brackets)]
        top = len(budgets)
        self.weights = []
        for start in range(num_brackets):
            size = (top + 1) / (top - start + 1) * factor ** (top - start)
            self.weights.append(math.ceil(size))
        self._bracket_of: list[int] = []

    def first_budget(self, number: int) -> int | None:
        """The budget at which a trial pauses first; None if it never does."""
        return self.brackets[self.bracket(number)][0]

    def promotion(self, trials: Sequence[Trial], *, is_last: bool) -> Promotion | None:
        """The next paused trial to continue; `is_last` if no trial runs and none will be added."""
        own = [trial for trial in trials if trial.same_as is None]
        for number, rungs in enumerate(self.brackets):
            members = [trial for trial in own if self.bracket(trial.number) == number]
            for level in reversed(range(len(rungs) - 1)):
                ranking = self._ranking(members, rungs[level])
                for trial in ranking[: len(ranking) // self.factor]:
                    if trial.state == "paused" and trial.budget == rungs[level]:
                        return Promotion(trial.number, rungs[level + 1])
        return self._last_promotion(own) if is_last else None

    def bracket(self, number: int) -> int:
        """That of trial `number`: each has its share of the trials so far, as nearly as possible."""
        while len(self._bracket_of) <= number:
            counts = [self._bracket_of.count(each) for each in range(len(self.weights))]
            pairs = zip(counts, self.weights, strict=True)
            shares = [(count + 1) / weight for count, weight in pairs]
            self._bracket_of.append(shares.index(min(shares)))
        return self._bracket_of[number]

    def _ranking(self, members: list[Trial], budget: int | None) -> list[Trial]:
        """The trials that reached a rung, the best first; of equal ones the earlier."""
        costs = {trial.number: self._cost(trial, budget) for trial in members}
        reached = [trial for trial in members if math.isfinite(costs[trial.number])]
        return sorted(reached, key=lambda trial: (costs[trial.number], trial.number))

    def _cost(self, trial: Trial, budget: int | None) -> float:
        """The value at a rung, better when lower; infinite if the trial has not reached it."""
        if budget in trial.rungs:
            return self.sign * trial.rungs[budget]
        if trial.state == "finished":  # Its run ended before the rung.
            return self.sign * trial.values[0]
        return math.inf

    def _last_promotion(self, trials: Sequence[Trial]) -> Promotion | None:
        paused = [trial for trial in trials if trial.state == "paused"]
        if any(trial.state == "finished" for trial in trials) or not paused:
            return None
        highest = max(trial.budget or 0 for trial in paused)
        best = self._ranking([trial for trial in paused if trial.budget == highest], highest)[0]
        rungs = self.brackets[self.bracket(best.number)]
        return Promotion(best.number, rungs[rungs.index(best.budget) + 1])


@dataclass(frozen=True)
class Pruning:
    """The pruner of a search.

    Args:
        name: none, median, asha or hyperband.
        unit: of budgets.
        length: budget of a whole run.
        prune_from: budget before which the median prunes nothing.
        overrides: set the length of every run.
        halving: without rungs for none and median.
        sign: 1 if the objective is minimised, else -1.
    """

    name: str
    unit: Unit = "steps"
    length: int = 0
    prune_from: int = 0
    overrides: tuple[str, ...] = ()
    halving: SuccessiveHalving = field(default_factory=SuccessiveHalving)
    sign: int = 1

    @property
    def is_active(self) -> bool:
        return self.name != "none"

    def limits(self, trials: Sequence[Trial]) -> list[float | None]:
        """The worst values with which a trial that starts now continues after each evaluation.

        The rule of Golovin et al. 2017 (Google Vizier): the median of the best values of the trials that are finished
        when it starts, so that its fate does not depend on those that run.
        """
        if self.name != "median":
            return []
        finished = [each for each in trials if each.state == "finished" and each.same_as is None]
        curves = [trial.result["evaluations"] for trial in finished if trial.result]
        length = min(max(map(len, curves), default=0), MAX_LIMITS)
        return [self._limit(curves, end) for end in range(1, length + 1)]

    def _limit(self, curves: list[list[float | None]], end: int) -> float | None:
        """The median of the best values of the first `end` evaluations; None of too few trials."""
        best = []
        for curve in curves:
            values = [self.sign * value for value in curve[:end] if value is not None]
            if len(curve) >= end and values:
                best.append(self.sign * min(values))
        return median(best) if len(best) >= MIN_CURVES else None

    def rule(self, trial: Trial) -> StopRule | None:
        """When the next job of a trial stops; None without a pruner."""
        if not self.is_active:
            return None
        return StopRule(
            unit=self.unit, pause_at=trial.budget, prune_from=self.prune_from, limits=trial.limits
        )


def read_pruning(
    settings: SearchSettings, config: DictConfig, space: list[Domain], direction: Direction
) -> Pruning:
    """The pruner of a search; raises ConfigError for settings that do not fit its config."""
    name = settings["pruner"]
    if name == "none":
        return Pruning(name)
    searched = [domain.key for domain in space]
    has_steps = config.trainer.max_steps is not None or LENGTHS["steps"] in searched
    unit = settings["budget_unit"] or ("steps" if has_steps else "epochs")
    key = LENGTHS[unit]
    if key in searched:
        budget = f"the budget of hydra.sweeper.pruner={name}, which cannot be searched"
        raise ConfigError(f"{key}: expected one value, since it is {budget}")
    configured = config.trainer.max_steps if unit == "steps" else config.trainer.epochs
    length = _length(settings["max_budget"], configured, unit)
    sign = 1 if direction == "minimize" else -1
    overrides = () if length == configured else (f"{key}={length}",)
    if name == "median":
        prune_from = settings["min_budget"] or 0
        return Pruning(name, unit, length, prune_from, overrides, sign=sign)
    factor = settings["reduction_factor"]
    between = config.trainer.eval_every if unit == "steps" else None
    budgets = _budgets(settings["min_budget"], length, factor, between)
    num_brackets = 1 if name == "asha" else len(budgets) + 1
    halving = SuccessiveHalving(budgets, factor, sign, num_brackets)
    return Pruning(name, unit, length, 0, overrides, halving, sign)


def _length(max_budget: int | None, configured: int | str | None, unit: Unit) -> int:
    """The budget of a whole run, the same in all trials."""
    if max_budget is not None:
        return max_budget
    if configured == "auto":
        more = "hydra.sweeper.max_budget=N changes this"
        logger.info(f"trainer.epochs=auto: {AUTO_EPOCHS} epochs in each trial; {more}")
        return AUTO_EPOCHS
    if configured is None:
        raise ConfigError(
            f"hydra.sweeper.max_budget: expected a number of {unit}, since {LENGTHS[unit]} is not set"
        )
    return int(configured)


def _budgets(minimum: int | None, length: int, factor: int, between: int | None) -> list[int]:
    """The rungs below the end of a run: its length divided by powers of the factor, ascending.

    Args:
        minimum: of the lowest rung; None takes `_NUM_RUNGS`, as far as there is an evaluation before each.
        between: steps between evaluations; None if that is unknown.
    """
    if minimum is not None and between is not None and minimum < between:
        raise ConfigError(
            f"hydra.sweeper.min_budget={minimum}: expected trainer.eval_every={between} or more"
        )
    least = minimum or max(between or 1, 1)
    powers = range(1, 64 if minimum else _NUM_RUNGS + 1)
    shares = [length / factor**power for power in powers]
    budgets = sorted({round(share) for share in shares if share >= least})
    if not budgets:
        start = f"min_budget={minimum}" if minimum else f"max_budget={length}"
        raise ConfigError(
            f"hydra.sweeper.{start}: no rung before the end of a run of {length}; {least} * {factor} is more"
        )
    return budgets
