"""Grids: every combination of the values of a command, without the jobs that its folder already holds."""

import logging
from collections import deque

from mlxlab.analysis.sweeps.sweep_start import FILE, SweepStart, unstarted
from mlxlab.config.admission import may_sweep
from mlxlab.errors import NotAllowedError
from mlxlab.record.attempts import JobRecord, read_jobs
from mlxlab.record.run_record import MAX_JOBS
from mlxlab.schema.dotted_keys import override_name
from mlxlab.sweep.app import SweepApp
from mlxlab.sweep.jobs import Job, JobResult, describe
from mlxlab.sweep.jobs_to_check import expand
from mlxlab.sweep.settings import GridSettings
from mlxlab.terminal.wording import one_line

logger = logging.getLogger(__name__)


def run_grid(app: SweepApp, settings: GridSettings) -> int:
    """Runs the jobs that are missing in the folder of a sweep; returns the exit code.

    1 if a job failed, 128 + the number of the signal that ended the sweep before its last job, else 0.

    Raises:
        ConfigError: the folder holds another sweep, or a setting of the launcher is not for this machine.
        CannotCreateError: another process runs this sweep, or its folder cannot be made.
        DataError: a record in the folder is damaged.
        WorkerLostError: a launcher of a plugin gave up, for example because a job was killed.
    """
    with app.open({}):
        num_known = len(app.start["jobs"])
        add_jobs(app.start, expand(app.overrides))
        grid = Grid(app, settings["retry_failed"])
        with app.run():
            if num_known:
                num_ended = len(grid.records) - grid.num_missing
                num_new = len(grid.records) - num_known
                logger.info(f"{num_known} jobs known, {num_ended} of them ended; {num_new} new")
            app.exit_code = grid.run()
            grid.report()
    return app.exit_code


def add_jobs(start: SweepStart, requested: list[list[str]]) -> None:
    """Adds the jobs that no earlier command asked for.

    Raises:
        NotAllowedError: earlier jobs have overrides that a folder may not decide, and that this command does not give.
    """
    typed = set[str]().union(*requested)
    stored = set[str]().union(*start["jobs"])
    for text in sorted(stored - typed):
        if not may_sweep(text):
            raise NotAllowedError(f"{FILE}: {one_line(text, 120)}: type it again")
    known = {tuple(sorted(overrides)) for overrides in start["jobs"]}
    new = [overrides for overrides in requested if tuple(sorted(overrides)) not in known]
    start["jobs"] = [*start["jobs"], *new]


class Grid:
    """The jobs of a grid, which of them are missing, and what came of each.

    Args:
        retry_failed: whether those that failed earlier are missing too.
    """

    def __init__(self, app: SweepApp, retry_failed: bool) -> None:
        self.app = app
        jobs = app.start["jobs"]
        self.records = [unstarted(app.start, number) for number in range(len(jobs))]
        self._queue = deque[int]()
        for record in read_jobs(app.folder).values():
            number = record.job.number
            if number < len(jobs) and record.job.overrides == jobs[number]:
                self.records[number] = record
        for number, record in enumerate(self.records):
            if not record.ended or (retry_failed and record.state == "failed"):
                self._queue.append(number)
        self.num_missing = len(self._queue)
        self._swept = [key for key, each in app.overrides.items() if each.is_sweep_override()]

    @property
    def is_unfinished(self) -> bool:
        return not all(record.ended for record in self.records)

    def run(self) -> int:
        """Runs the missing jobs; returns the exit code."""
        stop_signal = self.app.run_jobs(self.next_job, self.end_job, batch_size=MAX_JOBS)
        if stop_signal and self.is_unfinished:
            return 128 + stop_signal
        return int(any(record.state != "finished" for record in self.records))

    def next_job(self) -> Job | None:
        """The next missing job; None if there is none."""
        if not self._queue:
            return None
        number = self._queue.popleft()
        record = self.records[number]
        position = self.num_missing - len(self._queue)
        logger.info(f"{self._name(record)}: starts, {position} of {self.num_missing}")
        return self.app.compose(record.job.overrides, number)

    def end_job(self, result: JobResult) -> None:
        record = result.record
        self.records[result.job.number] = record
        logger.info(f"{self._name(record)}: {describe(result)}")

    def report(self) -> None:
        self.app.report(is_unfinished=self.is_unfinished)
        if any(record.state == "failed" for record in self.records):
            retry = self.app.continuation("hydra.sweeper.retry_failed=true")
            print(f"run failed jobs again: {retry}", flush=True)

    def _name(self, record: JobRecord) -> str:
        """The number of a job and its overrides of swept keys."""
        job = record.job
        texts = [text for text in job.overrides if override_name(text) in self._swept]
        if not texts:
            return f"job {job.number}"
        return f"job {job.number} ({' '.join(texts)})"
