"""The jobs of a sweep: which are missing, and what came of each, as its journal holds them."""

import logging
from dataclasses import replace
from pathlib import Path

from mlxlab.errors import ConfigError, UserError
from mlxlab.sweep.job_journal import MAX_JOBS, Job, JobJournal
from mlxlab.sweep.launcher.jobs import ComposedJob, JobResult, SweepContext, resumed

_FAILED = 1

logger = logging.getLogger(__name__)


class JobList:
    """The jobs that a command asks for, with numbers in the order in which they were first asked for.

    Args:
        requested: overrides of each job.
        retry_failed: whether those that failed earlier are missing too.

    Raises:
        ConfigError: there are too many.
    """

    def __init__(
        self,
        journal: JobJournal,
        context: SweepContext,
        folder: Path,
        requested: list[list[str]],
        *,
        retry_failed: bool,
    ) -> None:
        self.journal, self.context, self.folder = journal, context, folder
        self.numbers = self._enroll(requested)
        ended = ("finished", "skipped") if retry_failed else ("finished", "skipped", "failed")
        self.missing = [number for number in self.numbers if journal.jobs[number].state not in ended]

    @property
    def all(self) -> list[Job]:
        """Those of earlier commands too."""
        return [self.journal.jobs[number] for number in sorted(self.journal.jobs)]

    def is_unfinished(self) -> bool:
        """Whether a job has neither finished nor failed."""
        return bool({"waiting", "running", "stopped"} & {self.journal.jobs[number].state for number in self.numbers})

    def exit_code(self, stop_signal: int) -> int:
        """1 if a job did not finish, 128 + the number of a signal before the end, else 0."""
        if stop_signal and self.is_unfinished():
            return 128 + stop_signal
        states = {self.journal.jobs[number].state for number in self.numbers}
        return 0 if states <= {"finished", "skipped"} else _FAILED

    def compose(self, number: int) -> ComposedJob | None:
        """A job, ready to start; None if another one has the same config, or it cannot be composed."""
        job = self.journal.jobs[number]
        try:
            composed = self.context.compose(job.overrides, number)
            digest = self.context.digest(composed)
            same = next((each.number for each in self.all if each.config == digest and each.number != number), None)
            if same is not None:
                self.journal.record(replace(job, config=digest, state="skipped", reason=f"same config as job {same}"))
                return None
            if job.state != "waiting":
                composed = self.context.compose(resumed(job.overrides, composed.folder), number)
        except UserError as error:
            self.journal.record(replace(job, state="failed", reason=str(error), exit_code=error.exit_code))
            return None
        path = composed.folder.relative_to(self.folder).as_posix()
        self.journal.record(replace(job, config=digest, folder=path))
        return composed

    def start(self, number: int) -> None:
        """Records that a job starts."""
        job = self.journal.jobs[number]
        logger.info(
            f"job {number} ({self.numbers.index(number) + 1} of {len(self.numbers)}): {', '.join(job.overrides)}"
        )
        attempts = job.attempts + (job.state == "running")  # one that was killed with the sweep
        self.journal.record(replace(job, state="running", reason="", exit_code=None, attempts=attempts))

    def end(self, result: JobResult) -> None:
        """Records what came of a job."""
        job = self.journal.jobs[result.number]
        ended = replace(
            job,
            state=result.state,
            reason=result.reason,
            exit_code=result.exit_code,
            attempts=job.attempts + result.attempts,
            seconds=round(job.seconds + result.seconds, 3),
            value=result.value,
        )
        self.journal.record(ended)
        if result.value is None:
            logger.info(f"job {job.number} ({', '.join(job.overrides)}): {result.reason}")
        else:
            objective = self.context.config.objective
            logger.info(f"job {job.number}: {objective} {result.value:.6g} after {result.seconds:.1f} s")

    def _enroll(self, requested: list[list[str]]) -> list[int]:
        """The number of each job: that of an earlier command, or a new one."""
        earlier: dict[tuple[str, ...], list[int]] = {}
        for job in self.all:
            earlier.setdefault(tuple(job.overrides), []).append(job.number)
        numbers, new = list[int](), list[Job]()
        for overrides in requested:
            if known := earlier.get(tuple(overrides)):
                numbers.append(known.pop(0))
                continue
            number = len(self.journal.jobs) + len(new)
            new.append(Job(number, overrides, "", "waiting", "", None, 0, 0.0, None, str(number)))
            numbers.append(number)
        if len(self.journal.jobs) + len(new) > MAX_JOBS:
            raise ConfigError(f"-m: {len(requested):,} jobs; the limit is {MAX_JOBS:,}")
        self.journal.record(*new)
        return numbers
