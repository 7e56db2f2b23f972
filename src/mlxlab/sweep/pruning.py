"""Decides which trials of a search stop early, and which of them continue.

Asynchronous successive halving (ASHA, Li et al. 2020). Optuna's own pruners end a trial for good; here one pauses at its
rung, and the best continue from their checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from mlxlab.data.dataset import AUTO_EPOCHS
from mlxlab.errors import ConfigError
from mlxlab.schema.metric_names import sign_of
from mlxlab.sweep.search_space import Domain
from mlxlab.sweep.settings import SearchSettings
from mlxlab.sweep.study import budget_of, is_paused
from mlxlab.training.stop_rule import Unit

LENGTHS: dict[Unit, str] = {"steps": "trainer.max_steps", "epochs": "trainer.epochs"}
_NUM_RUNGS = 3  # below the end of a run, where no smallest budget is set


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

    Attributes:
        rungs: budgets in ascending order; the last is None, the end of the run.
    """

    def __init__(self, budgets: Sequence[int] = (), factor: int = 3, sign: int = 1) -> None:
        self.rungs: list[int | None] = [*budgets, None]
        self.factor = factor
        self.sign = sign

    def promotion(self, trials: Sequence[FrozenTrial], *, is_last: bool) -> Promotion | None:
        """The next paused trial to continue; `is_last` if no trial runs and none will be added."""
        promotion = self._next(trials, self.factor)
        has_finished = any(trial.state == TrialState.COMPLETE for trial in trials)
        if promotion is None and is_last and not has_finished:
            return self._next(trials, 1)
        return promotion

    def _next(self, trials: Sequence[FrozenTrial], factor: int) -> Promotion | None:
        """The best paused trial among one in `factor` of the highest rung that has one."""
        for budget, next_budget in reversed(list(pairwise(self.rungs))):
            ranking = self._ranking(trials, budget)
            for trial in ranking[: len(ranking) // factor]:
                if is_paused(trial) and budget_of(trial) == budget:
                    return Promotion(trial.number, next_budget)
        return None

    def _ranking(self, trials: Sequence[FrozenTrial], budget: int | None) -> list[FrozenTrial]:
        """The trials that reached a rung, the best first; of equal ones the earlier."""
        costs = {}
        for trial in trials:
            if budget in trial.intermediate_values:
                costs[trial.number] = self.sign * trial.intermediate_values[budget]
            elif trial.state == TrialState.COMPLETE:  # A run may end before the rung.
                costs[trial.number] = self.sign * trial.values[0]
        reached = [trial for trial in trials if trial.number in costs]
        return sorted(reached, key=lambda trial: costs[trial.number])


@dataclass(frozen=True)
class Pruning:
    """The pruner of a search.

    Args:
        halving: without rungs if there is no pruner.
        unit: of budgets.
        overrides: set the length of every run.
    """

    halving: SuccessiveHalving = field(default_factory=SuccessiveHalving)
    unit: Unit = "steps"
    overrides: tuple[str, ...] = ()


def read_pruning(
    settings: SearchSettings, config: DictConfig, space: list[Domain], objective: str
) -> Pruning:
    """The pruner of a search; raises ConfigError for settings that do not fit it or its config."""
    if settings["pruner"] == "none":
        return Pruning()
    searched = [domain.key for domain in space]
    has_steps = config.trainer.max_steps is not None or LENGTHS["steps"] in searched
    unit: Unit = "steps" if has_steps else "epochs"
    key = LENGTHS[unit]
    length = OmegaConf.select(config, key)
    if key in searched or length is None:
        budget = "the budget of hydra.sweeper.pruner, which cannot be searched"
        raise ConfigError(f"{key}: expected one value, since it is {budget}")
    overrides: tuple[str, ...] = ()
    if length == "auto":
        length = AUTO_EPOCHS
        overrides = (f"{key}={length}",)
    factor = settings["reduction_factor"]
    between = config.trainer.eval_every if unit == "steps" else None
    budgets = _budgets(settings["min_budget"], length, factor, between)
    halving = SuccessiveHalving(budgets, factor, sign=-sign_of(objective))
    return Pruning(halving, unit, overrides)


def _budgets(minimum: int | None, length: int, factor: int, between: int | None) -> list[int]:
    """The rungs below the end of a run: its length divided by powers of the factor, ascending.

    Args:
        minimum: of the lowest rung; None takes `_NUM_RUNGS`.
        between: steps between evaluations, of which there is one before each rung; None if that is unknown.
    """
    least = max(minimum or 1, between or 1)
    powers = range(1, 64 if minimum else _NUM_RUNGS + 1)
    shares = [length / factor**power for power in powers]
    budgets = sorted({round(share) for share in shares if share >= least})
    if not budgets:
        run = f"no rung before the end of a run of {length}; {least} * {factor} is more"
        raise ConfigError(f"hydra.sweeper.min_budget={minimum}: {run}")
    return budgets
