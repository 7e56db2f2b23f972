"""Proposes the trials of a search: Optuna's samplers, and all combinations in order.

A proposal is a function of the settings, the number of the trial and the results so far, so that a search that was
interrupted proposes what it would have proposed.
"""

import math
import warnings
from itertools import islice

import numpy as np
import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlxlab.sweep.search_space import Domain, distributions, grid_points, num_points
from mlxlab.sweep.settings import SearchSettings
from mlxlab.sweep.study import Study

_DEFAULT_TRIALS = 20
_POPULATION_SIZE = 10
_NUM_TRIES = 10  # draws of one trial, until one has a new point


def num_trials(settings: SearchSettings, space: list[Domain]) -> int:
    """The number of trials of the whole study, no more than there are points."""
    size = num_points(space)
    trials: float = settings["trials"] or _DEFAULT_TRIALS
    if settings["trials"] is None and settings["sampler"] in ("grid", "random") and size < math.inf:
        trials = size
    return int(min(trials, size))


def propose(settings: SearchSettings, space: list[Domain], study: Study) -> FrozenTrial:
    """The trial that follows those of a study, with another point than any of them."""
    seen = study.trials_as_seen()
    if settings["sampler"] == "grid":
        params = next(islice(grid_points(space), len(seen), None))
        known = distributions(space)
        return create_trial(state=TrialState.RUNNING, params=params, distributions=known)
    points = [trial.params for trial in seen]
    seeds = np.random.SeedSequence([settings["seed"], len(seen)]).generate_state(_NUM_TRIES)
    samplers = [_new_sampler(settings, int(seed)) for seed in seeds]
    if num_points(space) < math.inf:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls it experimental.
            samplers.append(BruteForceSampler(seed=int(seeds[0])))  # It draws a point that is left.
    for sampler in samplers:
        view = optuna.create_study(directions=study.directions, sampler=sampler)
        view.add_trials(seen)
        view.ask(distributions(space))
        proposed = view.get_trials(deepcopy=False)[-1]
        if proposed.params not in points:
            break
    return proposed


def _new_sampler(settings: SearchSettings, seed: int) -> BaseSampler:
    if settings["sampler"] == "random":
        return RandomSampler(seed=seed)
    if settings["sampler"] == "nsga":
        return NSGAIISampler(seed=seed, population_size=_POPULATION_SIZE)
    # The liar lets a trial that runs count as a bad one, so that the next is not the same.
    return TPESampler(
        seed=seed,
        n_startup_trials=settings["startup_trials"],
        multivariate=True,
        constant_liar=True,
    )
