"""Grids: every combination of the values of a command, without the jobs that its folder already holds."""

import itertools
import logging
import shlex
from collections import deque
from dataclasses import replace
from pathlib import Path

from hydra.core.override_parser.types import Override

from mlxlab import terminal
from mlxlab.config.admission import may_sweep
from mlxlab.config.hydra.job import job_digest
from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError, NotAllowedError, UserError
from mlxlab.experiment.sweep_start import FILE, SweepStart
from mlxlab.sweep.app import SweepApp
from mlxlab.sweep.child import OUTPUT
from mlxlab.sweep.continued_sweep import continuation
from mlxlab.sweep.job import MAX_JOBS, Job, JobRecord, read_records, write_record
from mlxlab.sweep.job_table import job_table, varying_keys
from mlxlab.sweep.jobs import JobResult
from mlxlab.sweep.settings import GridSettings

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
    with app.open() as start:
        num_known = len(start["jobs"])
        add_jobs(start, expand(app.overrides))
        grid = Grid(app, start, settings["retry_failed"])
        with app.run(start):
            if num_known:
                grid.describe_known(num_known)
            stop_signal = grid.run()
            app.exit_code = grid.exit_code(stop_signal)
            grid.report()
    return app.exit_code


def expand(overrides: dict[str, Override]) -> list[list[str]]:
    """The overrides of each job; the values of the last key change fastest."""
    values = [_texts(key, override) for key, override in overrides.items()]
    return [list(texts) for texts in dict.fromkeys(itertools.product(*values))]


def _texts(key: str, override: Override) -> list[str]:
    """The overrides that one key gets in turn."""
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [str(override.input_line)]


def add_jobs(start: SweepStart, requested: list[list[str]]) -> None:
    """Adds the jobs that no earlier command asked for.

    Raises:
        ConfigError: they are too many.
        NotAllowedError: earlier jobs have overrides that a folder may not decide, and that this command does not give.
    """
    typed = {text for overrides in requested for text in overrides}
    stored = {text for overrides in start["jobs"] for text in overrides}
    for text in sorted(stored - typed):
        if not may_sweep(text):
            raise NotAllowedError(f"{FILE}: {one_line(text, 120)}: type it again")
    known = {tuple(sorted(overrides)) for overrides in start["jobs"]}
    new = [overrides for overrides in requested if tuple(sorted(overrides)) not in known]
    start["jobs"] = [*start["jobs"], *new]
    if len(start["jobs"]) > MAX_JOBS:
        raise ConfigError(f"-m: {len(start['jobs']):,} jobs; the limit is {MAX_JOBS:,}")


class Grid:
    """The jobs of a grid, which of them are missing, and what came of each.

    Args:
        retry_failed: whether those that failed earlier are missing too.
    """

    def __init__(self, app: SweepApp, start: SweepStart, retry_failed: bool) -> None:
        self.app = app
        self.records = [JobRecord(number, texts) for number, texts in enumerate(start["jobs"])]
        for record in read_records(app.folder).values():
            if record.number < len(self.records):
                overrides = self.records[record.number].overrides
                self.records[record.number] = replace(record, overrides=overrides)
        ended = ("finished", "skipped") if retry_failed else ("finished", "skipped", "failed")
        self.missing = [each.number for each in self.records if each.state not in ended]
        self.running: dict[int, Path] = {}  # folders of jobs
        self._queue = deque(self.missing)
        self._varying = varying_keys(self.records)

    def describe_known(self, num_known: int) -> None:
        num_ended = len(self.records) - len(self.missing)
        num_new = len(self.records) - num_known
        logger.info(f"{num_known} jobs known, {num_ended} of them ended; {num_new} new")

    def run(self) -> int:
        """Runs the missing jobs; returns the number of a signal that stopped them, else 0."""
        batch_size = max(len(self.missing), 1)
        return self.app.run_jobs(self.next_job, self.end_job, self.running, batch_size)

    def next_job(self) -> Job | None:
        """The next missing job whose config no other one has; None if there is none."""
        while self._queue:
            number = self._queue.popleft()
            try:
                job = self._prepare(self.records[number])
            except UserError as error:
                failed = {"state": "failed", "reason": str(error), "exit_code": error.exit_code}
                self.records[number] = replace(self.records[number], **failed)  # type: ignore[arg-type]
                continue
            if job is not None:
                position = self.missing.index(number) + 1
                logger.info(f"{self._name(number)}: starts, {position} of {len(self.missing)}")
                self.running[number] = job.folder
                return job
        return None

    def end_job(self, result: JobResult) -> None:
        number = result.job.number
        record = replace(result.record, overrides=self.records[number].overrides)
        self.records[number] = record
        folder = self.running.pop(number)
        name = self._name(number)
        if record.value is None:
            output = folder / OUTPUT
            where = f" ({output})" if output.is_file() else ""
            logger.info(f"{name}: {record.reason}{where}")
        else:
            value = f"{self.app.objective} {record.value:.6g}"
            logger.info(f"{name}: {value} after {record.seconds:.1f} s")

    def exit_code(self, stop_signal: int) -> int:
        """1 if a job failed, 128 + the number of a signal that came before the end, else 0."""
        if stop_signal and self._is_unfinished():
            return 128 + stop_signal
        return int(any(record.state not in ("finished", "skipped") for record in self.records))

    def report(self) -> None:
        app = self.app
        terminal.show(f"\n{job_table(self.records, app.objective)}; {app.folder}")
        if self._is_unfinished():
            print(f"continue: {self._continuation()}", flush=True)
        if any(record.state == "failed" for record in self.records):
            retry = self._continuation("hydra.sweeper.retry_failed=true")
            print(f"run failed jobs again: {retry}", flush=True)

    def _continuation(self, *overrides: str) -> str:
        if self.app.is_resumed_by_folder:
            return continuation(self.app.folder, self.app.config, *overrides)
        folder = f"hydra.sweep.dir={self.app.folder}"
        return f"the same command with {shlex.join([folder, *overrides])}"

    def _is_unfinished(self) -> bool:
        return not all(record.ended for record in self.records)

    def _prepare(self, record: JobRecord) -> Job | None:
        """A job that is ready to start; None if another one has the same config."""
        number = record.number
        overrides = record.overrides
        job = self.app.compose(overrides, number)
        digest = job_digest(job.config)
        others = [each for each in self.records if each.config == digest]
        same = [each.number for each in others if each.state != "skipped"]
        if same and same[0] != number:
            reason = f"same config as job {same[0]}"
            skipped = replace(record, config=digest, state="skipped", reason=reason)
            self._keep(job, skipped)
            return None
        if record.attempts:
            job = self.app.compose(overrides, number, resume=True)
        waiting = replace(record, config=digest, state="waiting", reason="", exit_code=None)
        self._keep(job, waiting)
        return job

    def _keep(self, job: Job, record: JobRecord) -> None:
        self.records[record.number] = record
        write_record(job.folder, record)

    def _name(self, number: int) -> str:
        """The number of a job and the overrides that not all jobs have."""
        overrides = self.records[number].overrides
        texts = [text for text in overrides if override_name(text) in self._varying]
        return f"job {number} ({' '.join(texts)})" if texts else f"job {number}"
