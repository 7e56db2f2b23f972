"""Searches: trials that a sampler proposes and a pruner may stop early, kept in a study."""

import json
import logging
from collections import deque
from functools import partial
from pathlib import Path

from mlxlab import terminal
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.hydra.search_space import override_texts, read_space
from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import RunMetrics
from mlxlab.files.untrusted import read_json
from mlxlab.sweep.app import SweepApp
from mlxlab.sweep.continued_sweep import continuation
from mlxlab.sweep.job import Job, JobRecord, read_records, write_record
from mlxlab.sweep.jobs import JobResult
from mlxlab.sweep.pruning import read_pruning
from mlxlab.sweep.reports.search_result import trial_command, write_search_result
from mlxlab.sweep.sampler import Sampler, check_sampler, directions, num_trials
from mlxlab.sweep.settings import SearchSettings
from mlxlab.sweep.space import point_of
from mlxlab.sweep.study import Question, Study, Trial, TrialResult, open_study
from mlxlab.training.stop_rule import VARIABLE, StopRule

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
        with app.open() as start:
            study = open_study(app.folder, search.question)
            with app.run(start):
                app.exit_code = search.run(study)
                command_of = partial(trial_command, app.config, search.overrides)
                terminal.show(write_search_result(study, search.space, app.folder, command_of))
            if app.exit_code > 128:
                ended = sum(trial.is_ended for trial in study.trials())
                again = continuation(app.folder, app.config)
                done = f"{ended} of {search.num_trials} trials"
                logger.info(f"stopped after {done}; continue: {again}")
    except OSError as error:
        raise WriteError(f"{error.filename or app.folder}: {error.strerror or error}") from None
    return app.exit_code


class Search:
    """Decides which trial runs next, and keeps what came of it."""

    def __init__(self, app: SweepApp, settings: SearchSettings) -> None:
        self.app = app
        typed = as_typed(app.config.hydra.overrides.task)
        in_file = {key: str(value) for key, value in settings["params"].items()}
        overrides, self.space = read_space(typed, in_file)
        self.objectives = [app.objective]
        if settings["objectives"]:
            self.objectives = [str(name) for name in settings["objectives"]]
        check_sampler(settings, len(self.objectives))
        named = directions(self.objectives)
        first = named[self.objectives[0]]
        self.pruning = read_pruning(settings, app.config, self.space, first)
        self.overrides = [*overrides, *self.pruning.overrides]
        self.num_trials = num_trials(settings, self.space)
        self.sampler = Sampler(settings, self.space)
        described = {f"hydra.sweeper.{key}": str(value) for key, value in settings.items()}
        for key in ("trials", "params", "objectives"):
            del described[f"hydra.sweeper.{key}"]
        self.question: Question = {
            "space": {domain.key: str(domain) for domain in self.space},
            "objectives": named,
            "settings": described,
        }
        self.running: dict[int, Path] = {}  # folders of trials
        self.records: dict[int, JobRecord] = {}
        self._interrupted: deque[int] = deque()

    def run(self, study: Study) -> int:
        """Runs what is missing; returns the exit code."""
        self.study = study
        self._settle()
        ended = sum(trial.is_ended for trial in self._trials())
        if ended:
            logger.info(f"{self.app.folder}: {ended} of {self.num_trials} trials have ended")
        stop_signal = self.app.run_jobs(self.next_job, self.end_job, self.running, batch_size=1)
        if stop_signal:
            return 128 + stop_signal
        return int(any(not trial.is_ended or trial.state == "failed" for trial in self._trials()))

    def next_job(self) -> Job | None:
        """A trial that was interrupted, else one to promote, else a new one, if there is any."""
        while True:
            number = self._next_trial()
            if number is None:
                return None
            trial = self._trials()[number]
            if trial.same_as is None:
                return self._start(trial)
            self._copy_results()

    def end_job(self, result: JobResult) -> None:
        number = result.job.number
        self.records[number] = result.record
        outcome = self._keep(number, self.running.pop(number))
        logger.info(f"trial {number}: {outcome} after {result.record.seconds:.1f} s")
        self._copy_results()

    def _settle(self) -> None:
        """Keeps what ended before an earlier process was killed; the other trials run again."""
        folders = {}
        for folder, record in read_records(self.app.folder).items():
            self.records[record.number] = record
            folders[record.number] = folder
        for trial in self._trials():
            if trial.is_ended or trial.same_as is not None:
                continue
            known = self.records.get(trial.number)
            if known and known.ended and known.budget == trial.budget:
                self._keep(trial.number, folders[trial.number])
            else:
                self._interrupted.append(trial.number)
        self._copy_results()

    def _trials(self) -> list[Trial]:
        return self.study.trials(self.space)

    def _next_trial(self) -> int | None:
        if self._interrupted:
            return self._interrupted.popleft()
        trials = self._trials()
        is_last = len(trials) >= self.num_trials and not self.running
        promotion = self.pruning.halving.promotion(trials, is_last=is_last)
        if promotion is not None:
            self.study.set_budget(promotion.number, promotion.budget)
            return promotion.number
        return self._add(trials) if len(trials) < self.num_trials else None

    def _add(self, trials: list[Trial]) -> int:
        """A new trial; one whose point an earlier one has takes the result of that."""
        proposed = self.sampler.propose(self.study, trials)
        point = point_of(proposed.params, self.space)
        same = [each.number for each in trials if each.point == point and each.same_as is None]
        budget = self.pruning.halving.first_budget(len(trials))
        same_as = same[0] if same else None
        return self.study.add(proposed, budget, self.pruning.limits(trials), same_as)

    def _copy_results(self) -> None:
        trials = self._trials()
        for trial in trials:
            source = trials[trial.same_as] if trial.same_as is not None else trial
            is_open = trial.state in ("running", "paused")
            if is_open and source.is_ended and source.result and source.result != trial.result:
                self.study.end(trial.number, source.result)

    def _start(self, trial: Trial) -> Job:
        number = trial.number
        before = self.records.get(number, JobRecord(number, []))
        continues = before.attempts > 0
        texts = [*self.overrides, *override_texts(trial.point)]
        rule = self.pruning.rule(trial)
        job = self.app.compose([*texts, *_stopping(rule)], number, resume=continues)
        record = JobRecord(number, texts, attempts=before.attempts, seconds=before.seconds)
        self.study.set_stopped(number, False)
        write_record(job.folder, record)

        point = " ".join(override_texts(trial.point))
        begins = "continues" if continues else "starts"
        until = "" if trial.budget is None else f", until {trial.budget} {self.pruning.unit}"
        order = f"{number + 1} of {self.num_trials}"
        logger.info(f"trial {number} ({point}): {begins}, {order}{until}")
        self.running[number] = job.folder
        return job

    def _keep(self, number: int, folder: Path) -> str:
        """Tells the study what came of a job; returns it in words."""
        record = self.records[number]
        if not record.ended:
            self.study.set_stopped(number, True)
            return record.reason
        result = self._result(record, folder)
        self.study.end(number, result)
        pairs = zip(self.objectives, result["values"], strict=False)
        values = ", ".join(f"{name} {value:.6g}" for name, value in pairs)
        return "; ".join(filter(None, [values, result["reason"]]))

    def _result(self, record: JobRecord, folder: Path) -> TrialResult:
        """The objectives of a job, or why it has none."""
        result = TrialResult(
            values=[],
            reason=record.reason,
            state="failed",
            step=0,
            evaluations=[],
            seconds=record.seconds,
        )
        if record.value is None:
            return result
        if self.objectives == [self.app.objective] and not self.pruning.is_active:
            result["values"] = [record.value]
            result["state"] = "finished"
            return result
        try:
            self._read_metrics(folder / METRICS, result)
        except (DataError, InputNotFoundError) as error:
            result["reason"] = str(error)
        return result

    def _read_metrics(self, path: Path, result: TrialResult) -> None:
        run = read_json(path, RunMetrics)
        values = []
        for name in self.objectives:
            value = run["metrics"].get(name)
            if value is None:
                raise DataError(f"{path}: no value of {name}; it has {', '.join(run['metrics'])}")
            values.append(value)
        result["values"] = values
        result["reason"] = run.get("reason", "")
        result["state"] = run.get("state", "finished")
        result["step"] = run["steps"]
        result["evaluations"] = [value for _, value in run.get("evaluations", [])]


def _stopping(rule: StopRule | None) -> list[str]:
    """Overrides that put a rule into the environment of the job."""
    return [] if rule is None else [f"++hydra.job.env_set.{VARIABLE}='{json.dumps(rule)}'"]
