"""The sweeper of the command `trial`: trains a baseline and a change of it in pairs, until their gains decide."""

import logging
import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from mlxlab.analysis.comparison_runs import metric_of, read_finished
from mlxlab.config.hydra.compose import without_hydra
from mlxlab.config.hydra.job import job_config
from mlxlab.errors import DivergenceError, UserError
from mlxlab.schema.metric_names import sign_of
from mlxlab.stats.sequential import look
from mlxlab.sweep.app import SweepApp
from mlxlab.sweep.jobs import Job, JobResult
from mlxlab.sweep.trial.record import (
    ARMS,
    FILE,
    FinishedRuns,
    RunRecord,
    TrialRecord,
    config_digest,
    data_of,
    describe_look,
    look_record,
    read_record,
    write_record,
)
from mlxlab.sweep.trial.view import trial_page
from mlxlab.tracking.tracker import Tracker
from mlxlab.views.pages import REPORT, write_page

logger = logging.getLogger(__name__)

MIN_GAIN = 0.1  # The share of the standard deviation between baseline runs, where none is given.
_BUG = 70
_TIMEOUT = 124
_SIGNAL = 128
_NO_VALUE = 1  # exit code of a run whose objective is not finite


class Decided(Exception):
    """The gains have decided; runs that have not ended are of no use."""


def run_trial(app: SweepApp, seconds: float | None) -> int:
    """Runs the pairs that are missing; returns 128 + the number of a signal that came before the verdict, else 0.

    Args:
        seconds: after which no further pair starts; None is no limit.

    Raises:
        CannotCreateError: another process runs this trial, or its folder cannot be made.
        DataError: the record in the folder is damaged.
        UserError: a run failed for a reason that says nothing of the change.
    """
    with app.open({}):
        record = read_record(app.folder)
        with app.run() as parents:
            stop_signal = Pairs(app, record).run(seconds)
            app.exit_code = 0 if record.verdict else 128 + stop_signal
            page = write_page(app.folder / REPORT, trial_page(read_record(app.folder), app.folder))
            for parent in parents:
                log_trial(record, parent.tracker)
                parent.tracker.log_artifact(app.folder / FILE)
                parent.tracker.log_artifact(page)
    return app.exit_code


def log_trial(record: TrialRecord, tracker: Tracker) -> None:
    """Records a trial as the parent of its runs: verdict, gain and interval by the number of pairs."""
    if record.verdict is not None:
        tracker.set_tags({"mlxlab.sweep.trial": f"{record.verdict}: {record.reason}"})
    for each in record.looks:
        values = {"trial/gain": each.mean, "trial/low": each.low, "trial/high": each.high}
        tracker.log_metrics(each.pairs, values)


class Pairs:
    """The runs of a trial; run 2 i is the baseline of pair i, run 2 i + 1 is the changed one.

    Args:
        record: of the trial so far; kept up to date, here and in its file.
    """

    def __init__(self, app: SweepApp, record: TrialRecord) -> None:
        self.app = app
        self.record = record
        self.question = record.question
        baseline = Path(self.question.baseline)
        self.finished = FinishedRuns(baseline, app.folder.parent, self.question.code)
        self.running: dict[int, RunRecord] = {}
        self._not_reused: set[int] = set()
        self._begin = time.monotonic()
        self._seconds_before = record.seconds
        self._seconds = math.inf

    def run(self, seconds: float | None) -> int:
        """Trains pairs until the gains decide, `seconds` have passed, or a signal stops it; returns its number, or 0.

        Raises:
            UserError: a run failed for a reason that says nothing of the change.
        """
        record = self.record
        if record.verdict in ("keep", "discard"):
            return 0
        if seconds is not None:
            self._seconds = seconds
        record.gains = []
        record.looks = []
        record.verdict = None
        record.reason = ""
        stop_signal = 0
        self._look()
        if record.verdict is None:
            with suppress(Decided):
                stop_signal = self.app.run_jobs(self.next_job, self.end_job, batch_size=2)
        if record.verdict is None and stop_signal:
            record.reason = "interrupted; the same command continues"
        elif record.verdict is None:
            record.verdict = "undecided"
            record.reason = f"no decision within the {self._seconds:g} seconds of budget="
        write_record(self.app.folder, record)
        return stop_signal

    def next_job(self) -> Job | None:
        """The next run; a baseline that was trained before only if it cannot be reused."""
        begun = {*map(self._number, self.record.runs), *self.running}
        for number in range(2 * self.question.looks[-1]):
            if number in begun:
                continue
            if number ^ 1 not in begun and self._elapsed() > self._seconds:
                return None  # No pair begins any more.
            job, run = self._plan(number)
            if number % 2 == 0 and number not in self._not_reused and self._reuse(run):
                begun.add(number)
                continue
            self.running[number] = run
            return job
        return None

    def end_job(self, result: JobResult) -> None:
        """Records what came of a run.

        Raises:
            Decided: with it the gains decide.
            UserError: it failed for a reason that says nothing of the change.
        """
        job = result.record
        run = self.running.pop(result.job.number)
        if job.state == "stopped":
            return
        name = f"seed {run.seed} {run.arm}"
        value = None
        if job.state == "finished":
            metric = self.question.metric
            trained = read_finished(result.job.folder)
            value = metric_of(trained, metric, self.question.evaluation)
            logger.info(f"{name}: {metric} {value:.6g} after {job.seconds:.1f} s")
        elif run.arm == "baseline" or not _is_of_change(job.exit_code or 0):
            error = UserError(f"{name}: {job.reason} ({result.job.folder})")
            error.exit_code = job.exit_code or _BUG
            raise error
        else:
            self.record.verdict = "discard"
            self.record.reason = f"{name} failed: {job.reason}"
            logger.info(f"{name}: failed: {job.reason}")
        self.record.runs.append(replace(run, value=value, seconds=round(job.seconds, 3)))
        self.record.seconds = round(self._seconds_before + self._elapsed(), 3)
        if self.record.verdict is None:
            self._look()
        write_record(self.app.folder, self.record)
        if self.record.verdict is not None:
            raise Decided

    def _number(self, run: RunRecord) -> int:
        return 2 * (run.seed - self.question.first_seed) + ARMS.index(run.arm)

    def _plan(self, number: int) -> tuple[Job, RunRecord]:
        """A run that can be started, and what is known of it."""
        arm = ARMS[number % 2]
        seed = self.question.first_seed + number // 2
        job = self.app.compose([*self.question.overrides[arm], f"seed={seed}"], number)
        with job_config(job.config):
            config: Any = OmegaConf.to_container(without_hydra(job.config), resolve=True)
        folder = job.folder.relative_to(self.app.folder).as_posix()
        run = RunRecord(
            seed=seed,
            arm=arm,
            folder=folder,
            digest=config_digest(config),
            value=None,
            reused=False,
            seconds=0.0,
        )
        return job, run

    def _reuse(self, run: RunRecord) -> bool:
        """Whether a baseline was trained before, and is recorded."""
        metric = self.question.metric
        found = self.finished.find(run.digest, metric, self.question.evaluation)
        if found is None:
            return False
        folder, value = found
        self.record.runs.append(replace(run, folder=str(folder), value=value, reused=True))
        logger.info(f"seed {run.seed} baseline: {metric} {value:.6g}, trained before: {folder}")
        return True

    def _look(self) -> None:
        """Looks at the gains of the pairs that are complete, up to the first that is not."""
        first, last = self.question.looks
        sign = sign_of(self.question.metric)
        by_seed = self.record.by_seed
        gains = self.record.gains
        baselines: list[float] = []
        for number in range(last):
            runs = by_seed.get(self.question.first_seed + number, {})
            before = runs.get("baseline")
            after = runs.get("changed")
            if before is None or before.value is None or after is None or after.value is None:
                return
            baselines.append(before.value)
            if number < len(gains):
                continue
            if not self._is_same_data(before, after):
                self._not_reused.add(2 * number)
                self.record.runs.remove(before)
                return
            gains.append(sign * (after.value - before.value) + 0.0)  # no -0.0
            min_gain = self.question.min_gain
            if min_gain is None:
                min_gain = MIN_GAIN * stdev(baselines) if number > 0 else 0.0
            current = look(np.array(gains), min_gain, first, last)
            if current.pairs < first:
                continue
            kept = look_record(current, min_gain, last)
            self.record.looks.append(kept)
            self.record.verdict = kept.verdict
            self.record.reason = kept.reason
            logger.info(describe_look(kept))
            if kept.verdict is not None:
                return

    def _is_same_data(self, before: RunRecord, after: RunRecord) -> bool:
        """Whether a run that is reused saw the data of now, unless the change is one of the data."""
        if not before.reused:
            return True
        if any(text.lstrip("+~").startswith("data") for text in self.question.change):
            return True
        return data_of(Path(before.folder)) == data_of(self.app.folder / after.folder)

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin


def _is_of_change(exit_code: int) -> bool:
    """Whether a run failed in a way that a change of it can cause."""
    own = (_NO_VALUE, DivergenceError.exit_code, _BUG, _TIMEOUT)
    return exit_code in own or exit_code > _SIGNAL
