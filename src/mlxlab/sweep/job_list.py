"""The jobs of a sweep: which are missing, and what came of each, as its journal holds them."""

import logging
from dataclasses import replace
from pathlib import Path

from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError, UserError
from mlxlab.sweep.job_journal import MAX_JOBS, Job, JobJournal
from mlxlab.sweep.job_seconds import seconds_of_attempts
from mlxlab.sweep.job_table import varying_keys
from mlxlab.sweep.launcher.isolated import OUTPUT
from mlxlab.sweep.launcher.jobs import ComposedJob, JobResult, SweepContext, resumed

_FAILED = 1

logger = logging.getLogger(__name__)


class JobList:
    """The jobs of a sweep, with numbers in the order in which a command first asked for them.

    Args:
        requested: overrides of each job of the command; those that the journal lacks are added to it.
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
        self.num_new = self._enroll(requested)
        self._varying = varying_keys(self.all)
        self.running = dict[int, Path]()  # folders of those that run now
        ended = ("finished", "skipped") if retry_failed else ("finished", "skipped", "failed")
        self.missing = [job.number for job in self.all if job.state not in ended]

    @property
    def all(self) -> list[Job]:
        """All jobs by number, those of earlier commands too."""
        return [self.journal.jobs[number] for number in sorted(self.journal.jobs)]

    def is_unfinished(self) -> bool:
        """Whether a job waits, runs or was stopped."""
        return any(job.state in ("waiting", "running", "stopped") for job in self.all)

    def exit_code(self, stop_signal: int) -> int:
        """1 if a job did not finish, 128 + the number of a signal before the end, else 0."""
        if stop_signal and self.is_unfinished():
            return 128 + stop_signal
        return 0 if all(job.state in ("finished", "skipped") for job in self.all) else _FAILED

    def compose(self, number: int) -> ComposedJob | None:
        """A job, ready to start; None if another one has the same config, or it cannot be composed."""
        job = self.journal.jobs[number]
        try:
            composed = self.context.compose(job.overrides, number)
            digest = self.context.digest(composed)
            same = next(
                (
                    each.number
                    for each in self.all
                    if each.config == digest and each.number != number
                ),
                None,
            )
            if same is not None:
                self.journal.record(
                    replace(
                        job, config=digest, state="skipped", reason=f"same config as job {same}"
                    )
                )
                return None
            if job.state != "waiting":
                composed = self.context.compose(resumed(job.overrides, composed.folder), number)
        except UserError as error:
            self.journal.record(
                replace(job, state="failed", reason=str(error), exit_code=error.exit_code)
            )
            return None
        path = composed.folder.relative_to(self.folder).as_posix()
        self.journal.record(replace(job, config=digest, folder=path))
        return composed

    def start(self, number: int) -> None:
        """Records that a job starts."""
        job = self.journal.jobs[number]
        logger.info(
            f"{self._name(job)}: starts, {self.missing.index(number) + 1} of {len(self.missing)}"
        )
        self.running[number] = self.folder / job.folder
        attempts = job.attempts + (job.state == "running")  # one that was killed with the sweep
        self.journal.record(
            replace(job, state="running", reason="", exit_code=None, attempts=attempts)
        )

    def end(self, result: JobResult) -> None:
        """Records what came of a job."""
        job = self.journal.jobs[result.number]
        self.running.pop(job.number, None)
        ended = replace(
            job,
            state=result.state,
            reason=result.reason,
            exit_code=result.exit_code,
            attempts=job.attempts + result.attempts,
            seconds=round(max(job.seconds + result.seconds, seconds_of_attempts(result.folder)), 3),
            value=result.value,
        )
        self.journal.record(ended)
        if result.value is None:
            output = result.folder / OUTPUT
            logger.info(
                f"{self._name(job)}: {result.reason}{f' ({output})' if output.is_file() else ''}"
            )
        else:
            objective = self.context.config.objective
            logger.info(
                f"{self._name(job)}: {objective} {result.value:.6g} after {result.seconds:.1f} s"
            )

    def _name(self, job: Job) -> str:
        """Its number and the overrides that not all jobs have."""
        texts = [text for text in job.overrides if override_name(text) in self._varying]
        return f"job {job.number} ({' '.join(texts)})" if texts else f"job {job.number}"

    def _enroll(self, requested: list[list[str]]) -> int:
        """Adds the jobs that no earlier command asked for; returns their number."""
        earlier: dict[tuple[str, ...], list[int]] = {}
        for job in self.all:
            earlier.setdefault(tuple(sorted(job.overrides)), []).append(job.number)
        new = list[Job]()
        for overrides in requested:
            if known := earlier.get(tuple(sorted(overrides))):
                known.pop(0)
                continue
            number = len(self.journal.jobs) + len(new)
            new.append(Job(number, overrides, "", "waiting", "", None, 0, 0.0, None, str(number)))
        if len(self.journal.jobs) + len(new) > MAX_JOBS:
            raise ConfigError(f"-m: {len(requested):,} jobs; the limit is {MAX_JOBS:,}")
        self.journal.record(*new)
        return len(new)
