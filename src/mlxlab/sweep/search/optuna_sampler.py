"""Optuna's samplers as proposals only: TPE, CMA-ES and NSGA-II. Optuna neither runs nor stores a trial.

The study of Optuna lives in memory: its storage keeps the state of CMA-ES as a pickle, and reading one runs code.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlxlab.config.hydra.search_space import Domain, Interval, Point, Values
from mlxlab.errors import ConfigError
from mlxlab.program import install_command
from mlxlab.sweep.search.trial import Trial

if TYPE_CHECKING:
    import optuna

Direction = Literal["minimize", "maximize"]
Name = Literal["tpe", "cma", "nsga"]
Settings = dict[str, int | float | bool | None]
MAX_SEED = 2**32  # of NumPy's RandomState


def version(sampler: str) -> str:
    """That of Optuna; raises ConfigError if it, or what `sampler` needs, is not installed."""
    try:
        import optuna

        if sampler == "cma":
            import cmaes  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"hydra.sweeper.sampler={sampler} needs {error.name}; {install_command('sweep')}, or choose random or grid"
        ) from None
    return optuna.__version__


def sampler_settings(
    sampler: Name, space: list[Domain], startup_trials: int, population_size: int | None
) -> Settings:
    """The arguments of Optuna's sampler, all that its version 5 and earlier ones default differently included.

    Raises ConfigError for a space that the sampler cannot search.
    """
    if sampler == "tpe":
        candidates: Settings = {
            "n_ei_candidates": 24,
            "multivariate": True,
            "group": False,
            "constant_liar": True,
        }
        return {"n_startup_trials": startup_trials, **candidates}
    if sampler == "nsga":
        rates: Settings = {"mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5}
        return {"population_size": population_size or 10, **rates}
    choices = [domain for domain in space if isinstance(domain, Values) and not domain.ordered]
    if choices:
        expected = "expected interval(...) or range(...); choices are for tpe and nsga"
        raise ConfigError(f"hydra.sweeper.sampler=cma: {choices[0].key}: {expected}")
    if len(space) < 2:
        raise ConfigError(
            f"hydra.sweeper.sampler=cma: expected 2 or more keys, got {space[0].key} alone"
        )
    return {
        "popsize": population_size,
        "n_startup_trials": 1,
        "sigma0": None,
        "with_margin": False,
        "lr_adapt": False,
    }


class TPESampler:
    """TPE. Each proposal is made by a new sampler from the trials alone, with a seed of its own.

    Of a paused or pruned trial it knows the best value and the step. A trial that runs counts as a bad one, so that the
    next is not the same (the constant liar of Ginsbourger et al. 2010).
    """

    def __init__(
        self, settings: Settings, seed: int, space: list[Domain], directions: list[Direction]
    ) -> None:
        self.settings, self.seed, self.space, self.directions = settings, seed, space, directions
        self.distributions = {domain.key: _distribution(domain) for domain in space}

    def propose(self, trials: list[Trial]) -> Point:
        seed = int(np.random.SeedSequence([self.seed, len(trials)]).generate_state(1)[0])
        study = _new_study("tpe", self.settings, seed, self.directions)
        with _quiet():
            study.add_trials([_frozen(trial, self.space, self.distributions) for trial in trials])
            params = study.ask(self.distributions).params
        return {domain.key: _value(domain, params[domain.key]) for domain in self.space}


class OptunaSampler:
    """CMA-ES or NSGA-II: a sampler of Optuna that has seen earlier trials, each asked and told in the order of then.

    Replaying them brings it into the state that it would have without an interruption. Where another version of Optuna
    proposes other points, it starts from the results alone, with the seed plus the number of finished trials.

    Args:
        directions: one for each objective.
        trials: those of the study so far.
    """

    def __init__(
        self,
        name: Literal["cma", "nsga"],
        settings: Settings,
        seed: int,
        space: list[Domain],
        directions: list[Direction],
        trials: list[Trial],
    ) -> None:
        self.space = space
        self.distributions = {domain.key: _distribution(domain) for domain in space}
        self.asked: list[optuna.Trial | None] = []  # None: a sampler of before asked for it
        self.num_told = 0
        self.study = _new_study(name, settings, seed, directions)
        self.is_replayed = self._replay(trials)
        if not self.is_replayed:
            finished = [trial for trial in trials if trial.is_ended]
            self.study = _new_study(name, settings, (seed + len(finished)) % MAX_SEED, directions)
            self.asked, self.num_told = [None] * len(trials), 0
            self._tell(trials)

    def propose(self, trials: list[Trial]) -> Point:
        self._tell(trials)
        return self._ask()

    def _ask(self) -> Point:
        with _quiet():
            asked = self.study.ask(self.distributions)
        self.asked.append(asked)
        return {domain.key: _value(domain, asked.params[domain.key]) for domain in self.space}

    def _tell(self, trials: list[Trial], known: int | None = None) -> None:
        """The results that it has not been told, in the order of their arrival, of the first `known`."""
        import optuna

        results = sorted((result.order, trial) for trial in trials for result in trial.results[-1:])
        for _, trial in results[self.num_told : known]:
            asked = self.asked[trial.number]
            if asked is None:
                with _quiet():
                    self.study.add_trial(_frozen(trial, self.space, self.distributions))
            elif trial.values:
                self.study.tell(asked, trial.values)
            else:
                self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
            self.num_told += 1

    def _replay(self, trials: list[Trial]) -> bool:
        """Whether every trial was proposed again."""
        for trial in trials:
            self._tell(trials, trial.known)
            if self._ask() != trial.point:
                return False
        return True


def _new_study(
    name: Name, settings: Settings, seed: int, directions: list[Direction]
) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = optuna.samplers
    classes = {
        "tpe": samplers.TPESampler,
        "cma": samplers.CmaEsSampler,
        "nsga": samplers.NSGAIISampler,
    }
    with _quiet():
        return optuna.create_study(
            directions=directions, sampler=classes[name](seed=seed, **settings)
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of features that Optuna calls experimental: the settings of the study name them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _frozen(
    trial: Trial,
    space: list[Domain],
    distributions: "dict[str, optuna.distributions.BaseDistribution]",
) -> "optuna.trial.FrozenTrial":
    """A trial as Optuna knows it; one that was paused or pruned has its best value at the step that it reached."""
    import optuna

    states = optuna.trial.TrialState
    state = {
        "running": states.RUNNING,
        "stopped": states.RUNNING,
        "paused": states.PRUNED,
        "pruned": states.PRUNED,
        "finished": states.COMPLETE,
        "failed": states.FAIL,
    }[trial.state]
    return optuna.create_trial(
        state=state,
        params={domain.key: _param(domain, trial.point[domain.key]) for domain in space},
        distributions=distributions,
        values=trial.values if state == states.COMPLETE else None,
        intermediate_values={trial.step: trial.values[0]} if state == states.PRUNED else None,
    )


def _distribution(domain: Domain) -> "optuna.distributions.BaseDistribution":
    from optuna import distributions

    if isinstance(domain, Interval):
        if domain.integer:
            return distributions.IntDistribution(int(domain.low), int(domain.high), log=domain.log)
        return distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
    if domain.ordered:
        return distributions.IntDistribution(0, len(domain.texts) - 1)
    return distributions.CategoricalDistribution(domain.texts)


def _value(domain: Domain, param: str | int | float) -> str | int | float:
    """A parameter of Optuna as a value of the search space: that of a range is the position of its value."""
    return domain.texts[int(param)] if isinstance(domain, Values) and domain.ordered else param


def _param(domain: Domain, value: str | int | float) -> str | int | float:
    return (
        domain.texts.index(str(value)) if isinstance(domain, Values) and domain.ordered else value
    )
