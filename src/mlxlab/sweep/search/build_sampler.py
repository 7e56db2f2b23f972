"""Builds the sampler of a search from the settings of `hydra.sweeper`, and checks them."""

import logging
from typing import Literal

from mlxlab.config.hydra.search_space import Domain, Values
from mlxlab.errors import ConfigError
from mlxlab.metric_names import lower_is_better
from mlxlab.sweep.search import optuna_sampler
from mlxlab.sweep.search.optuna_sampler import (
    MAX_SEED,
    Direction,
    OptunaSampler,
    Settings,
    TPESampler,
)
from mlxlab.sweep.search.samplers import (
    MAX_COMBINATIONS,
    GridSampler,
    RandomSampler,
    Sampler,
    num_combinations,
)
from mlxlab.sweep.search.study import MAX_TRIALS, Study, StudySettings

Name = Literal["tpe", "cma", "nsga", "random", "grid"]
DEFAULT_TRIALS = 20

logger = logging.getLogger(__name__)


def directions(objectives: list[str]) -> dict[str, Direction]:
    """Losses and errors are minimised, other metrics maximised."""
    return {name: "minimize" if lower_is_better(name) else "maximize" for name in objectives}


def check_sampler(sampler: Name, pruner: str, num_objectives: int) -> None:
    """Raises ConfigError for a sampler that does not go with the pruner or the number of objectives."""
    if sampler == "cma" and num_objectives > 1:
        raise ConfigError(
            f"hydra.sweeper.sampler=cma: expected one objective, got {num_objectives}; use nsga or tpe"
        )
    if pruner != "none" and (num_objectives > 1 or sampler in ("cma", "nsga")):
        got = f"{num_objectives} objectives" if num_objectives > 1 else f"sampler={sampler}"
        raise ConfigError(
            f"hydra.sweeper.pruner={pruner}: expected tpe, random or grid, one objective; got {got}"
        )


def optuna_version(sampler: Name) -> str | None:
    """None of samplers without it; raises ConfigError if it is not installed."""
    return None if sampler == "grid" or sampler == "random" else optuna_sampler.version(sampler)


def sampler_settings(
    sampler: Name, space: list[Domain], seed: int, startup_trials: int, population_size: int | None
) -> Settings:
    """All that the sampler is built with; raises ConfigError if it cannot search this space."""
    if sampler == "grid":
        return {}
    if sampler == "random":
        return {"seed": seed}
    return {
        "seed": seed,
        **optuna_sampler.sampler_settings(sampler, space, startup_trials, population_size),
    }


def num_trials(sampler: Name, space: list[Domain], trials: int | None) -> int:
    """The number of trials of the whole study; raises ConfigError if it is too large, or a grid has intervals."""
    size = num_combinations(space)
    if sampler == "grid":
        if size is None:
            key = next(domain.key for domain in space if not isinstance(domain, Values))
            raise ConfigError(
                f"hydra.sweeper.sampler=grid: {key}: expected values, choice(...) or range(...)"
            )
        if size > MAX_COMBINATIONS:
            raise ConfigError(
                f"hydra.sweeper.sampler=grid: {size:,} combinations; the limit is {MAX_TRIALS:,}"
            )
    if sampler in ("grid", "random") and size is not None and (trials is None or trials > size):
        trials = size
    trials = DEFAULT_TRIALS if trials is None else trials
    if trials > MAX_TRIALS:
        raise ConfigError(f"hydra.sweeper.trials: expected at most {MAX_TRIALS:,}, got {trials:,}")
    return trials


def build_sampler(study: Study, settings: StudySettings, space: list[Domain]) -> Sampler:
    """The sampler that proposes the next trials of a study.

    Args:
        settings: of this command; the study may have been started with another version of Optuna.
    """
    name, own = settings["sampler"], dict(settings["sampler_settings"])
    seed = int(own.pop("seed", 0) or 0)
    if name == "grid":
        return GridSampler([domain for domain in space if isinstance(domain, Values)])
    if name == "random":
        return RandomSampler(space, seed)
    each = list(settings["objectives"].values())
    if name == "tpe":
        return TPESampler(own, seed, space, each)
    sampler = OptunaSampler(
        "cma" if name == "cma" else "nsga", own, seed % MAX_SEED, space, each, study.trials
    )
    if not sampler.is_replayed:
        was, now = study.settings["optuna"], settings["optuna"]
        logger.warning(
            f"optuna {now} proposes other trials than {was}: the sampler restarts from their results"
        )
    return sampler
