"""Searches: trials that a sampler proposes and a pruner may stop early, kept in a study.

A proposal is a function of the settings, the number of the trial and the results so far, so that a search that was
interrupted proposes what it would have proposed.
"""

import json
import logging
import math
import shlex
import warnings
from collections import deque

import numpy as np
import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from mlxlab import terminal
from mlxlab.errors import WriteError
from mlxlab.record.attempts import JobRecord, read_jobs
from mlxlab.sweep.app import SweepApp
from mlxlab.sweep.jobs import Job, JobResult, describe, record_of
from mlxlab.sweep.pruning import read_pruning
from mlxlab.sweep.search_space import (
    Domain,
    distributions,
    num_points,
    override_texts,
    split_space,
)
from mlxlab.sweep.settings import SearchSettings
from mlxlab.sweep.study import Study, budget_of, is_paused, is_unfinished
from mlxlab.training.stop_rule import VARIABLE, StopRule

_DEFAULT_TRIALS = 20
_NUM_TRIES = 10  # draws of one trial, until one has a new point
_PAUSED = "paused: saved at a rung and not promoted; a larger hydra.sweeper.trials may continue the best of them"
_MAY_CHANGE = ("trials", "params")  # Other settings are those of one search.

logger = logging.getLogger(__name__)


def run_search(app: SweepApp, settings: SearchSettings) -> int:
    """Runs the trials that the study in the sweep's folder does not have yet; returns the exit code.

    1 if a trial failed, 128 + the number of the signal that stopped a trial, else 0.

    Raises:
        ConfigError: the settings do not fit, or the folder holds another sweep.
        CannotCreateError: another process runs this search, or the folder cannot be made.
        DataError: the study is damaged.
        WriteError: the disk cannot be written.
    """
    search = Search(app, settings)
    try:
        with app.open(search.described):
            search.study = Study(app.folder, search.space, app.objective)
            with app.run():
                app.exit_code = search.run()
                search.report()
    except OSError as error:
        raise WriteError(f"{error.filename or app.folder}: {error.strerror or error}") from None
    return app.exit_code


class Search:
    """Decides which trial runs next, and keeps what came of it.

    Attributes:
        study: is set once the folder is held.
        described: what the trials of one search share, in words.
    """

    study: Study

    def __init__(self, app: SweepApp, settings: SearchSettings) -> None:
        self.app = app
        self.settings = settings
        overrides, self.space = split_space(app.overrides.values())
        self.pruning = read_pruning(settings, app.config, self.space, app.objective)
        self.overrides = [*overrides, *self.pruning.overrides]
        self.num_trials = num_trials(settings, self.space)
        self.described = {domain.key: domain.text for domain in self.space}
        for key, value in settings.items():
            if key not in _MAY_CHANGE:
                self.described[f"hydra.sweeper.{key}"] = str(value)
        self.running: set[int] = set()
        self._interrupted: deque[int] = deque()

    def run(self) -> int:
        """Runs what is missing; returns the exit code."""
        self._settle()
        ended = sum(not is_unfinished(trial) for trial in self.study.trials())
        if ended:
            logger.info(f"{self.app.folder}: {ended} of {self.num_trials} trials have ended")
        stop_signal = self.app.run_jobs(self.next_job, self.end_job, batch_size=1)
        if stop_signal:
            return 128 + stop_signal
        trials = self.study.trials()
        return int(any(is_unfinished(each) or each.state == TrialState.FAIL for each in trials))

    def next_job(self) -> Job | None:
        """A trial that was interrupted, else one to promote, else a new one, if there is any."""
        if self._interrupted:
            return self._start(self._interrupted.popleft())
        trials = self.study.trials()
        is_last = len(trials) >= self.num_trials and not self.running
        promotion = self.pruning.halving.promotion(trials, is_last=is_last)
        if promotion is not None:
            self.study.set_budget(promotion.number, promotion.budget)
            return self._start(promotion.number)
        if len(trials) >= self.num_trials:
            return None
        proposed = propose(self.settings, self.space, self.study)
        self.study.add(proposed, self.pruning.halving.rungs[0])
        return self._start(len(trials))

    def end_job(self, result: JobResult) -> None:
        number = result.job.number
        self.running.remove(number)
        self._keep(result.record)
        logger.info(f"trial {number}: {describe(result)}")

    def report(self) -> None:
        """Prints the table of trials, and the best one with the command that repeats it."""
        app = self.app
        app.report(is_unfinished=app.exit_code > 128)
        best = self.study.best_trial()
        if best is not None:
            again = shlex.join([f"rerun={app.folder / str(best.number)}"])
            value = f"{app.objective} {best.value:.6g}"
            terminal.show(f"best: trial {best.number}, {value}\n    mlxlab train {again}")
        if any(map(is_paused, self.study.trials())):
            terminal.show(_PAUSED)

    def _settle(self) -> None:
        """Keeps what ended before an earlier process was killed; the other trials run again."""
        ended = {
            (record.job.number, record.job.budget): record
            for record in read_jobs(self.app.folder).values()
            if record.ended
        }
        for trial in self.study.trials():
            if not is_unfinished(trial):
                continue
            attempt = (trial.number, budget_of(trial))
            if attempt in ended:
                self._keep(ended[attempt])
            else:
                self._interrupted.append(trial.number)

    def _start(self, number: int) -> Job:
        trial = self.study.trials()[number]
        budget = budget_of(trial)
        point = override_texts(trial.params)
        texts = [*self.overrides, *point]
        job = self.app.compose([*texts, *self._stopping(budget)], number)
        begins = "continues" if record_of(job).attempts else "starts"
        until = "" if budget is None else f", until {budget} {self.pruning.unit}"
        order = f"{number + 1} of {self.num_trials}"
        logger.info(f"trial {number} ({' '.join(point)}): {begins}, {order}{until}")
        self.running.add(number)
        return job

    def _stopping(self, budget: int | None) -> list[str]:
        """The override that puts the rule by which its job stops into the environment of that."""
        if self.settings["pruner"] == "none":
            return []
        rule = StopRule(unit=self.pruning.unit, pause_at=budget)
        return [f"++hydra.job.env_set.{VARIABLE}='{json.dumps(rule)}'"]

    def _keep(self, record: JobRecord) -> None:
        """Tells the study what came of a job; one that a signal stopped has no result yet."""
        job = record.job
        if record.state == "failed":
            self.study.fail(job.number)
        elif record.value is None:
            return
        elif record.state == "paused" and job.budget is not None:
            self.study.pause(job.number, job.budget, record.value)
        else:
            self.study.finish(job.number, record.value)


def num_trials(settings: SearchSettings, space: list[Domain]) -> int:
    """The number of trials of the whole study, no more than there are points."""
    size = num_points(space)
    trials: float = settings["trials"] or _DEFAULT_TRIALS
    if settings["trials"] is None and settings["sampler"] == "random" and size < math.inf:
        trials = size
    return int(min(trials, size))


def propose(settings: SearchSettings, space: list[Domain], study: Study) -> FrozenTrial:
    """The trial that follows those of a study, with another point than any of them."""
    seen = study.trials_as_seen()
    points = [trial.params for trial in seen]
    seeds = np.random.SeedSequence([settings["seed"], len(seen)]).generate_state(_NUM_TRIES)
    samplers = [_new_sampler(settings, int(seed)) for seed in seeds]
    if num_points(space) < math.inf:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls it experimental.
            samplers.append(BruteForceSampler(seed=int(seeds[0])))  # It draws a point that is left.
    for sampler in samplers:
        view = optuna.create_study(direction=study.direction, sampler=sampler)
        view.add_trials(seen)
        view.ask(distributions(space))
        proposed = view.get_trials(deepcopy=False)[-1]
        if proposed.params not in points:
            break
    return proposed


def _new_sampler(settings: SearchSettings, seed: int) -> BaseSampler:
    if settings["sampler"] == "random":
        return RandomSampler(seed=seed)
    # The liar lets a trial that runs count as a bad one, so that the next is not the same.
    return TPESampler(
        seed=seed,
        n_startup_trials=settings["startup_trials"],
        multivariate=True,
        constant_liar=True,
    )
