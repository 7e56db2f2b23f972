"""Optuna's samplers as proposals only: TPE, CMA-ES and NSGA-II. Optuna neither runs nor stores a trial.

The study of Optuna lives in memory: its storage keeps the state of CMA-ES as a pickle, and reading one runs code.
"""

import warnings
from typing import TYPE_CHECKING, Literal

from mlxlab.config.hydra.search_space import Domain, Interval, Point, Values
from mlxlab.errors import ConfigError
from mlxlab.sweep.study import Trial

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
            f"hydra.sweeper.sampler={sampler} needs {error.name}; pip install -e '.[sweep]', or choose random or grid"
        ) from None
    return optuna.__version__


def sampler_settings(sampler: Name, space: list[Domain], startup_trials: int, population_size: int | None) -> Settings:
    """The arguments of Optuna's sampler, all that its version 5 and earlier ones default differently included.

    Raises ConfigError for a space that the sampler cannot search.
    """
    if sampler == "tpe":
        candidates: Settings = {"n_ei_candidates": 24, "multivariate": True, "group": False, "constant_liar": False}
        return {"n_startup_trials": startup_trials, **candidates}
    if sampler == "nsga":
        rates: Settings = {"mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5}
        return {"population_size": population_size or 10, **rates}
    choices = [domain for domain in space if isinstance(domain, Values) and not domain.ordered]
    if choices:
        expected = "expected interval(...) or range(...); choices are for tpe and nsga"
        raise ConfigError(f"hydra.sweeper.sampler=cma: {choices[0].key}: {expected}")
    if len(space) < 2:
        raise ConfigError(f"hydra.sweeper.sampler=cma: expected 2 or more keys, got {space[0].key} alone")
    return {"popsize": population_size, "n_startup_trials": 1, "sigma0": None, "with_margin": False, "lr_adapt": False}


class OptunaSampler:
    """A sampler of Optuna that has seen earlier trials.

    Replaying them brings it into the state that it would have without an interruption. Where another version of Optuna
    proposes other points, it starts from the results alone, with the seed plus the number of finished trials.

    Args:
        directions: one for each objective.
        trials: those of the study so far; the last one may be running.
    """

    def __init__(
        self,
        name: Name,
        settings: Settings,
        seed: int,
        space: list[Domain],
        directions: list[Direction],
        trials: list[Trial],
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.settings, self.space, self.directions = name, settings, space, directions
        self.distributions = {domain.key: _distribution(domain) for domain in space}
        self.asked: optuna.Trial | None = None
        self.study = self._new_study(seed)
        self.is_replayed = self._replay(trials)
        if not self.is_replayed:
            finished = [trial for trial in trials if trial.state != "running"]
            self.asked, self.study = None, self._new_study((seed + len(finished)) % MAX_SEED)
            for trial in finished:
                self.record(trial.point, trial.values or None)

    def propose(self, number: int) -> Point:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental features, named in the settings of the study
            self.asked = self.study.ask(self.distributions)
        return {domain.key: _value(domain, self.asked.params[domain.key]) for domain in self.space}

    def record(self, point: Point, values: list[float] | None) -> None:
        import optuna

        state = optuna.trial.TrialState.COMPLETE if values else optuna.trial.TrialState.FAIL
        if self.asked is not None:
            self.study.tell(self.asked, values, state)
            self.asked = None
            return
        params = {domain.key: _param(domain, point[domain.key]) for domain in self.space}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = optuna.create_trial(params=params, distributions=self.distributions, values=values, state=state)
        self.study.add_trial(trial)

    def _replay(self, trials: list[Trial]) -> bool:
        """Whether every trial was proposed again."""
        for trial in trials:
            if self.propose(trial.number) != trial.point:
                return False
            if trial.state != "running":
                self.record(trial.point, trial.values or None)
        return True

    def _new_study(self, seed: int) -> "optuna.Study":
        import optuna

        samplers = optuna.samplers
        classes = {"tpe": samplers.TPESampler, "cma": samplers.CmaEsSampler, "nsga": samplers.NSGAIISampler}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = classes[self.name](seed=seed, **self.settings)
        return optuna.create_study(directions=self.directions, sampler=sampler)


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
    return domain.texts.index(str(value)) if isinstance(domain, Values) and domain.ordered else value
