"""Proposes the trials of a search: Optuna's samplers, and all combinations in order or at random.

A proposal is a function of the settings, the number of the trial and the results so far, so that a search that was
interrupted proposes what it would have proposed.
"""

import warnings

import numpy as np
import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlxlab.config.hydra.search_space import Domain, Values
from mlxlab.errors import ConfigError
from mlxlab.metric_names import lower_is_better
from mlxlab.sweep.settings import SearchSettings
from mlxlab.sweep.space import (
    MAX_COMBINATIONS,
    combination,
    distributions,
    num_combinations,
    params_of,
)
from mlxlab.sweep.study import Direction, Study, Trial

MAX_TRIALS = 100_000
_DEFAULT_TRIALS = 20
_POPULATION_SIZE = 10


def directions(objectives: list[str]) -> dict[str, Direction]:
    """Losses and errors are minimised, other metrics maximised."""
    return {name: "minimize" if lower_is_better(name) else "maximize" for name in objectives}


def check_sampler(settings: SearchSettings, num_objectives: int) -> None:
    """Raises ConfigError for a pruner that does not go with the sampler or the number of objectives."""
    name = settings["sampler"]
    if settings["pruner"] == "none" or (num_objectives == 1 and name != "nsga"):
        return
    got = f"{num_objectives} objectives" if num_objectives > 1 else f"sampler={name}"
    expected = "expected tpe, random or grid, one objective"
    raise ConfigError(f"hydra.sweeper.pruner={settings['pruner']}: {expected}; got {got}")


def num_trials(settings: SearchSettings, space: list[Domain]) -> int:
    """The number of trials of the whole study; ConfigError if it is too large, or a grid has intervals."""
    name = settings["sampler"]
    size = num_combinations(space)
    trials = settings["trials"]
    if name == "grid" and size is None:
        key = next(domain.key for domain in space if not isinstance(domain, Values))
        expected = "expected values, choice(...) or range(...)"
        raise ConfigError(f"hydra.sweeper.sampler=grid: {key}: {expected}")
    if name in ("grid", "random") and size is not None:
        trials = min(size, trials or size)
    trials = trials or _DEFAULT_TRIALS
    if trials > MAX_TRIALS:
        raise ConfigError(f"hydra.sweeper.trials: expected at most {MAX_TRIALS:,}, got {trials:,}")
    return trials


class Sampler:
    """Proposes the trials of a search with these settings."""

    def __init__(self, settings: SearchSettings, space: list[Domain]) -> None:
        self.settings = settings
        self.space = space
        self.distributions = distributions(space)
        self._order: np.ndarray | None = None  # of the combinations of a finite space
        size = num_combinations(space)
        if size is not None and settings["sampler"] == "grid":
            self._order = np.arange(min(size, MAX_TRIALS))
        elif size is not None and size <= MAX_COMBINATIONS and settings["sampler"] == "random":
            self._order = np.random.default_rng(settings["seed"]).permutation(size)

    def propose(self, study: Study, trials: list[Trial]) -> FrozenTrial:
        """The trial that follows those of a study, which has the same trials as Optuna knows them."""
        if self._order is not None:
            point = combination(self.space, int(self._order[len(trials)]))
            params = params_of(point, self.space)
            return create_trial(
                state=TrialState.RUNNING, params=params, distributions=self.distributions
            )
        with warnings.catch_warnings():
            # Optuna calls some settings of its samplers experimental.
            warnings.simplefilter("ignore")
            sampler = self._new_sampler(len(trials))
            view = optuna.create_study(directions=study.frozen.directions, sampler=sampler)
            known = zip(study.frozen_trials(), trials, strict=True)
            view.add_trials([_as_seen(frozen, trial) for frozen, trial in known])
            view.ask(self.distributions)
        return view.get_trials(deepcopy=False)[-1]

    def _new_sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial, with a seed of its own."""
        seed = int(np.random.SeedSequence([self.settings["seed"], number]).generate_state(1)[0])
        if self.settings["sampler"] == "random":
            return RandomSampler(seed=seed)
        if self.settings["sampler"] == "nsga":
            size = self.settings["population_size"] or _POPULATION_SIZE
            return NSGAIISampler(seed=seed, population_size=size)
        # The liar lets a trial that runs count as a bad one, so that the next is not the same.
        return TPESampler(
            seed=seed,
            n_startup_trials=self.settings["startup_trials"],
            multivariate=True,
            constant_liar=True,
        )


def _as_seen(frozen: FrozenTrial, trial: Trial) -> FrozenTrial:
    """A trial as a sampler sees it; one that was paused or pruned has its value at the step that it reached."""
    if trial.state not in ("paused", "pruned"):
        return frozen
    return create_trial(
        state=TrialState.PRUNED,
        params=frozen.params,
        distributions=frozen.distributions,
        intermediate_values={trial.step: trial.values[0]},
    )
