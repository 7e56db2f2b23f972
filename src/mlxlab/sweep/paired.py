"""The sweeper of the command `trial`: trains a baseline and a change of it in pairs, until their gains decide."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from mlxlab.analysis.comparison_runs import run_value
from mlxlab.analysis.trial.figure import FILE as PAIRS
from mlxlab.analysis.trial.figure import draw_pairs
from mlxlab.analysis.trial.finished_runs import FinishedRuns, config_digest, data_of
from mlxlab.analysis.trial.record import (
    ARMS,
    FILE,
    RunRecord,
    TrialRecord,
    describe_look,
    read_record,
    write_record,
)
from mlxlab.analysis.trial.sequential import look
from mlxlab.config.hydra.compose import without_hydra
from mlxlab.config.hydra.job import job_config
from mlxlab.errors import DivergenceError, UserError
from mlxlab.experiment import manifest
from mlxlab.figures import save_figure
from mlxlab.metric_names import lower_is_better
from mlxlab.sweep import job
from mlxlab.sweep.app import SweepApp
from mlxlab.sweep.job import Job, JobRecord
from mlxlab.sweep.jobs import JobResult, Jobs
from mlxlab.tracking.tracker import Tracker

MIN_GAIN = 0.1  # of the standard deviation between baseline runs, where none is given
_BUG = 70
_TIMEOUT = 124
_SIGNAL = 128
_NO_VALUE = 1  # exit code of a run whose objective is not finite


def run_trial(app: SweepApp, seconds: float | None) -> int:
    """Runs the pairs that are missing; returns 128 + the number of a signal that came before the verdict, else 0.

    Args:
        seconds: after which no further pair starts; None is no limit.

    Raises:
        CannotCreateError: another process runs this trial, or its folder cannot be made.
        DataError: the record in the folder is damaged.
        UserError: a run failed for a reason that says nothing of the change.
    """
    with app.open() as start:
        record = read_record(app.folder)

        def log(tracker: Tracker) -> None:
            log_trial(record, app.folder, tracker)

        with app.run(start, log=log):
            jobs = app.open_jobs(batch_size=2)
            try:
                Pairs(app, record, jobs).run(seconds)
            finally:
                jobs.close()
            app.exit_code = 0 if record["verdict"] else 128 + jobs.stop_signal
    return app.exit_code


class PlannedRun(NamedTuple):
    """A run of the trial that can be started.

    Attributes:
        digest: of its config, without what does not change its results.
        data: config of the data set.
    """

    job: Job
    digest: str
    data: Any


class Pairs:
    """The runs of a trial; run 2 i is the baseline of pair i, run 2 i + 1 is the changed one.

    Args:
        record: of the trial so far; kept up to date, here and in its file.
    """

    def __init__(self, app: SweepApp, record: TrialRecord, jobs: Jobs) -> None:
        self.app = app
        self.folder = app.folder
        self.record = record
        self.jobs = jobs
        self.question = record["question"]
        baseline = Path(self.question["baseline"])
        self.finished = FinishedRuns(baseline, self.folder.parent, self.question["code"])
        self.ended: dict[int, RunRecord] = {}
        for run in record["runs"]:
            pair = run["seed"] - self.question["first_seed"]
            self.ended[2 * pair + ARMS.index(run["arm"])] = run
        self.planned: dict[int, PlannedRun] = {}
        self.not_reused: set[int] = set()
        self.running: set[int] = set()

    def run(self, seconds: float | None) -> None:
        """Trains pairs until the gains decide, `seconds` have passed, or a signal stops the launcher.

        Raises:
            UserError: a run failed for a reason that says nothing of the change.
        """
        start = time.monotonic()
        before = self.record["seconds"]
        if self.record["verdict"] in ("keep", "discard"):
            return
        self.record |= {"gains": [], "looks": [], "verdict": None, "reason": ""}
        self._look()
        while self.record["verdict"] is None:
            is_late = seconds is not None and time.monotonic() - start > seconds
            self._start(is_late=is_late)
            if self.running:
                self._end(self.jobs.wait())
            elif is_late or self.jobs.stop_signal:
                break
            self._look()
            self.record["seconds"] = round(before + time.monotonic() - start, 3)
            write_record(self.folder, self.record)
        if self.record["verdict"] is None:
            self._give_up(seconds)
        write_record(self.folder, self.record)

    def _give_up(self, seconds: float | None) -> None:
        if self.jobs.stop_signal:
            self.record["reason"] = "interrupted; the same command continues"
        else:
            self.record["verdict"] = "undecided"
            self.record["reason"] = f"no decision within the {seconds:g} seconds of budget="

    def _start(self, *, is_late: bool) -> None:
        """Starts runs while the launcher takes some; a baseline that was trained before only if it cannot be reused."""
        for number in range(2 * self.question["looks"][-1]):
            if number in self.ended or number in self.running:
                continue
            begins_pair = not {number ^ 1} & (self.running | self.ended.keys())
            if not self.jobs.num_free or self.jobs.stop_signal or (is_late and begins_pair):
                return
            planned = self._plan(number)
            if number % 2 == 0 and number not in self.not_reused and self._reuse(number, planned):
                continue
            self.running.add(number)
            job.write_record(planned.job.folder, JobRecord(number, planned.job.overrides))
            self.jobs.start(planned.job)

    def _plan(self, number: int) -> PlannedRun:
        """Composes a run; one that was interrupted continues."""
        overrides = [*self.question["overrides"][ARMS[number % 2]], f"seed={self._seed(number)}"]
        new = self.app.compose(overrides, number)
        with job_config(new.config):
            config: Any = OmegaConf.to_container(without_hydra(new.config), resolve=True)
        if (new.folder / manifest.FILE).is_file():
            new = self.app.compose(overrides, number, resume=True)
        self.planned[number] = PlannedRun(new, config_digest(config), config["data"])
        return self.planned[number]

    def _reuse(self, number: int, planned: PlannedRun) -> bool:
        question = self.question
        run = self.finished.find(planned.digest, question["metric"], question["evaluation"])
        if run is None:
            return False
        folder, value = run
        self._add(number, str(folder), value, reused=True)
        name = f"seed {self._seed(number)} baseline"
        show(f"{name}: {question['metric']} {value:.6g}, trained before: {folder}")
        return True

    def _end(self, result: JobResult) -> None:
        """Records what came of a run. Raises UserError if it failed for a reason that says nothing of the change."""
        number = result.job.number
        folder = result.job.folder
        record = result.record
        self.running.discard(number)
        if record.state == "stopped":
            return
        name = f"seed {self._seed(number)} {ARMS[number % 2]}"
        value = None
        if record.state == "finished":
            metric = self.question["metric"]
            value = run_value(folder, metric, self.question["evaluation"])
            show(f"{name}: {metric} {value:.6g} after {record.seconds:.1f} s")
        else:
            if number % 2 == 0 or not _is_of_change(record.exit_code or 0):
                error = UserError(f"{name}: {record.reason} ({folder})")
                error.exit_code = record.exit_code or _BUG
                raise error
            self.record |= {"verdict": "discard", "reason": f"{name} failed: {record.reason}"}
            show(f"{name}: failed: {record.reason}")
        path = folder.relative_to(self.folder).as_posix()
        self._add(number, path, value, seconds=record.seconds)

    def _look(self) -> None:
        """Looks at the gains of the pairs that are complete, up to the first that is not."""
        first, last = self.question["looks"][0], self.question["looks"][-1]
        sign = -1 if lower_is_better(self.question["metric"]) else 1
        while self.record["verdict"] is None:
            number = 2 * len(self.record["gains"])
            before = self.ended.get(number)
            after = self.ended.get(number + 1)
            if before is None or after is None or before["value"] is None or after["value"] is None:
                return
            if before["reused"] and not self._is_same_data(number, before, after):
                self.not_reused.add(number)
                self.record["runs"].remove(self.ended.pop(number))
                return
            gain = sign * (after["value"] - before["value"]) + 0.0  # no -0.0
            self.record["gains"].append(gain)
            current = look(self.record["gains"], self._min_gain(), first, last)
            if current.pairs >= first:
                fields: Any = asdict(current)
                self.record["looks"].append(fields)
                self.record |= {"verdict": current.verdict, "reason": current.reason}
                show(describe_look(current))

    def _min_gain(self) -> float:
        given = self.question["min_gain"]
        if given is not None:
            return given
        values = [self.ended[2 * pair]["value"] or 0.0 for pair in range(len(self.record["gains"]))]
        return MIN_GAIN * stdev(values) if len(values) > 1 else 0.0

    def _is_same_data(self, number: int, before: RunRecord, after: RunRecord) -> bool:
        """Whether a run that was trained before saw the data of now, as far as the changed run tells."""
        baseline = self.planned.get(number)
        changed = self.planned.get(number + 1)
        if baseline is None or changed is None or baseline.data != changed.data:
            return True
        return data_of(Path(before["folder"])) == data_of(self.folder / after["folder"])

    def _add(
        self,
        number: int,
        folder: str,
        value: float | None,
        *,
        reused: bool = False,
        seconds: float = 0.0,
    ) -> None:
        """Adds a run that has ended to the record."""
        run = RunRecord(
            seed=self._seed(number),
            arm=ARMS[number % 2],
            folder=folder,
            digest=self.planned[number].digest,
            value=value,
            reused=reused,
            seconds=round(seconds, 3),
        )
        self.ended[number] = run
        self.record["runs"].append(run)

    def _seed(self, number: int) -> int:
        return self.question["first_seed"] + number // 2


def show(line: str) -> None:
    """Prints a line of progress."""
    print(line, file=sys.stderr, flush=True)


def _is_of_change(exit_code: int) -> bool:
    """Whether a run failed in a way that a change of it can cause."""
    own = (_NO_VALUE, DivergenceError.exit_code, _BUG, _TIMEOUT)
    return exit_code in own or exit_code > _SIGNAL


def log_trial(record: TrialRecord, folder: Path, tracker: Tracker) -> None:
    """Records a trial as the parent of its runs: verdict, gain and interval by the number of pairs, and files."""
    tags = {"kind": "trial", "trial.baseline": record["question"]["baseline"]}
    tags["trial.change"] = " ".join(record["question"]["change"])
    if record["verdict"] is not None:
        tags |= {"trial.verdict": record["verdict"], "trial.reason": record["reason"]}
    tracker.set_tags(tags)
    for each in record["looks"]:
        values = {"trial/gain": each["mean"], "trial/low": each["low"], "trial/high": each["high"]}
        finite = {name: value for name, value in values.items() if value is not None}
        tracker.log_metrics(each["pairs"], finite)
    tracker.log_artifact(folder / FILE)
    figure = draw_pairs(record)
    if figure is not None:
        save_figure(tracker, figure, folder / PAIRS)
