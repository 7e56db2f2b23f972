"""The pruner of a search from the settings of `hydra.sweeper`, and the budget of its runs."""

import logging
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig

from mlxlab.config.hydra.search_space import Domain
from mlxlab.data.dataset import AUTO_EPOCHS
from mlxlab.errors import ConfigError
from mlxlab.sweep.pruning.pruner import MedianPruner, NoPruner, Pruner
from mlxlab.sweep.pruning.successive_halving import SuccessiveHalving
from mlxlab.sweep.search.optuna_sampler import Direction
from mlxlab.sweep.search.trial import Trial
from mlxlab.training.stop_rule import StopRule, Unit

logger = logging.getLogger(__name__)

Name = Literal["none", "median", "asha", "hyperband"]
LENGTHS: dict[Unit, str] = {"steps": "trainer.max_steps", "epochs": "trainer.epochs"}
DEFAULT_RUNGS = 3  # below the end of a run


@dataclass(frozen=True)
class Pruning:
    """A pruner and its settings, resolved: what the study stores. `overrides` set the length of every run."""

    pruner: Pruner
    unit: Unit
    min_budget: int
    settings: dict[str, int | str | None]
    overrides: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        return not isinstance(self.pruner, NoPruner)

    def rule(self, trial: Trial) -> StopRule | None:
        """That of the next job of a trial; None for no pruner."""
        if not self.is_active:
            return None
        return StopRule(
            unit=self.unit, pause_at=trial.budget, prune_from=self.min_budget, limits=trial.limits
        )


def read_pruning(
    name: Name,
    unit: Unit | None,
    min_budget: int | None,
    max_budget: int | None,
    reduction_factor: int,
    *,
    config: DictConfig,
    space: list[Domain],
    direction: Direction,
) -> Pruning:
    """The pruner for a search with this config; raises ConfigError for settings that do not fit it."""
    if name == "none":
        return Pruning(NoPruner(), "steps", 0, {})
    trainer = config.trainer
    searched = [domain.key for domain in space]
    has_steps = trainer.max_steps is not None or LENGTHS["steps"] in searched
    unit = unit or ("steps" if has_steps else "epochs")
    key = LENGTHS[unit]
    configured = trainer.max_steps if unit == "steps" else trainer.epochs
    if configured == "auto":  # the budgets of all trials are the same
        configured = None
        if max_budget is None:
            max_budget = AUTO_EPOCHS
            logger.info(
                f"trainer.epochs=auto: {max_budget} epochs in each trial; hydra.sweeper.max_budget=N changes this"
            )
    if key in searched:
        budget = f"the budget of hydra.sweeper.pruner={name}, which cannot be searched"
        raise ConfigError(f"{key}: expected one value, since it is {budget}")
    length = configured if max_budget is None else max_budget
    if length is None:
        raise ConfigError(
            f"hydra.sweeper.max_budget: expected a number of {unit}, since {key} is not set"
        )
    overrides = () if length == configured else (f"{key}={length}",)
    settings: dict[str, int | str | None] = {
        "budget_unit": unit,
        "min_budget": min_budget,
        "max_budget": length,
    }
    if name == "median":
        return Pruning(MedianPruner(direction), unit, min_budget or 0, settings, overrides)
    between = trainer.eval_every if unit == "steps" else None
    budgets = _budgets(min_budget, length, reduction_factor, between)
    settings |= {"min_budget": budgets[0], "reduction_factor": reduction_factor}
    num_brackets = 1 if name == "asha" else len(budgets) + 1
    pruner = SuccessiveHalving(budgets, reduction_factor, direction, num_brackets)
    return Pruning(pruner, unit, 0, settings, overrides)


def _budgets(minimum: int | None, length: int, factor: int, between: int | None) -> list[int]:
    """The rungs below the end of a run: its length divided by powers of the factor, ascending.

    Args:
        minimum: of the lowest rung; None takes `DEFAULT_RUNGS`, as far as there is an evaluation before each.
        between: steps between evaluations; None if that is unknown.
    """
    if minimum is not None and between is not None and minimum < between:
        raise ConfigError(
            f"hydra.sweeper.min_budget={minimum}: expected trainer.eval_every={between} or more"
        )
    least = minimum or max(between or 1, 1)
    powers = range(1, 64 if minimum else DEFAULT_RUNGS + 1)
    budgets = sorted(
        {round(length / factor**power) for power in powers if length / factor**power >= least}
    )
    if not budgets:
        start = (
            f"hydra.sweeper.min_budget={minimum}"
            if minimum
            else f"hydra.sweeper.max_budget={length}"
        )
        raise ConfigError(
            f"{start}: no rung before the end of a run of {length}; {least} * {factor} is more"
        )
    return budgets
