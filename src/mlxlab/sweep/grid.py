"""The sweeper of `hydra/sweeper=grid`: every combination of values, without the jobs that its folder already holds."""

import logging
import shlex
import time
from itertools import groupby
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab import terminal
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.hydra.sweep_jobs import params_not_typed
from mlxlab.config.issues import one_line
from mlxlab.errors import ConfigError, WorkerLostError
from mlxlab.redact import redact
from mlxlab.sweep.continued_sweep import check_continued, continuation, sweep_start
from mlxlab.sweep.job_journal import FILE, open_job_journal
from mlxlab.sweep.job_list import JobList
from mlxlab.sweep.job_table import job_table
from mlxlab.sweep.launcher.build import is_own, open_jobs
from mlxlab.sweep.launcher.job_run import report_of
from mlxlab.sweep.launcher.jobs import Jobs, SweepContext
from mlxlab.sweep.launcher.results import job_result
from mlxlab.sweep.parent_run import sweep_folder
from mlxlab.sweep.progress_line import progress_line
from mlxlab.sweep.search.study import FILE as STUDY

logger = logging.getLogger(__name__)


class GridSweeper:
    """Runs every combination of the values that the command line or `params` gives.

    Args:
        params: more values, by override: `seed: range(3)`.
    """

    def __init__(
        self,
        params: dict[str, str | int | float | bool],
        *,
        config: DictConfig,
        context: HydraContext,
        task: TaskFunction,
    ) -> None:
        self.config, self.hydra, self.task = config, context, task
        parser, texts = OverridesParser.create(), as_typed(config.hydra.overrides.task)
        typed = parser.parse_overrides(texts)
        in_file = parser.parse_overrides(params_not_typed(params, typed))
        [self.requested] = BasicSweeper.split_arguments([*in_file, *typed], None)

    def sweep(self) -> int:
        """Runs the jobs that are missing in the sweep's folder; returns the exit code.

        1 if a job failed, 128 + the number of the signal that ended the sweep before its last job, else 0.

        Raises:
            ConfigError: the folder holds another sweep, or a setting of the launcher is not for this machine.
            CannotCreateError: another process runs this sweep, or its folder cannot be made.
            DataError: the journal in the folder is damaged.
            WorkerLostError: a launcher of a plugin gave up, for example because a job was killed.
        """
        folder = sweep_folder(self.config)
        start = sweep_start(self.config)
        if (folder / STUDY).exists():
            raise ConfigError(
                f"{folder}: holds a search; expected hydra/sweeper=search, or another hydra.sweep.dir"
            )
        with open_job_journal(folder, start) as journal:
            check_continued(journal.start, start, folder)
            journal.record_start(start)
            OmegaConf.save(self.config, folder / "multirun.yaml")
            self.hydra.callbacks.on_multirun_start(config=self.config, config_name="train")
            exit_code = 1
            try:
                context = SweepContext(self.config, self.hydra, self.task)
                retry_failed = is_own(self.config) and self.config.hydra.launcher.retry_failed
                jobs = JobList(journal, context, folder, self.requested, retry_failed=retry_failed)
                exit_code = jobs.exit_code(self._run(jobs))
                self._report(jobs, folder)
            finally:
                self.hydra.callbacks.on_multirun_end(
                    config=self.config, config_name="train", exit_code=exit_code
                )
        return exit_code

    def _run(self, jobs: JobList) -> int:
        """Runs the missing jobs; returns the number of a signal that stopped them, else 0."""
        if known := len(jobs.all) - jobs.num_new:
            logger.info(
                f"{known} jobs known, {len(jobs.all) - len(jobs.missing)} of them ended; {jobs.num_new} new"
            )
        if not is_own(self.config):
            self._launch(jobs)
            return 0
        with open_jobs(self.config, self.hydra, self.task) as launcher, progress_line(jobs.running):
            run_jobs(jobs, launcher)
            return launcher.stop_signal

    def _launch(self, jobs: JobList) -> None:
        """Runs the missing jobs with a launcher of Hydra or of a plugin, which takes jobs of successive numbers."""
        launcher = Plugins.instance().instantiate_launcher(self.hydra, self.task, self.config)
        ready = [
            composed for number in jobs.missing if (composed := jobs.compose(number)) is not None
        ]
        for _, group in groupby(enumerate(ready), key=lambda item: item[1].number - item[0]):
            batch = [composed for _, composed in group]
            for composed in batch:
                jobs.start(composed.number)
            start = time.monotonic()
            try:
                returns = launcher.launch(
                    [composed.overrides for composed in batch], initial_job_idx=batch[0].number
                )
            except OSError:
                raise
            except (
                Exception
            ) as error:  # of the launcher itself: those of jobs are in what it returns
                raise self._launcher_error(error) from error
            seconds = (time.monotonic() - start) / len(batch)
            for composed, returned in zip(batch, returns, strict=True):
                jobs.end(job_result(composed, report_of(returned), attempts=1, seconds=seconds))

    def _launcher_error(self, error: Exception) -> WorkerLostError:
        choice = f"hydra/launcher={self.config.hydra.runtime.choices['hydra/launcher']}"
        message = redact(one_line(f"{type(error).__name__}: {error}", 300))
        return WorkerLostError(
            f"{choice}: {message}; the same command runs the jobs that are missing"
        )

    def _report(self, jobs: JobList, folder: Path) -> None:
        terminal.show(f"\n{job_table(jobs.all, self.config.objective)}; {folder / FILE}")
        if jobs.is_unfinished():
            # a plugin's launcher is not started from a file
            repeat = f"the same command with {shlex.quote(f'hydra.sweep.dir={folder}')}"
            print(
                f"continue: {continuation(folder, self.config) if is_own(self.config) else repeat}",
                flush=True,
            )
        if is_own(self.config) and any(job.state == "failed" for job in jobs.all):
            retry = continuation(folder, self.config, "hydra.launcher.retry_failed=true")
            print(f"run failed jobs again: {retry}", flush=True)


def run_jobs(jobs: JobList, launcher: Jobs) -> None:
    """Runs the missing jobs in order, as many at a time as the launcher takes, until a signal stops it."""
    running = 0
    for position, number in enumerate(jobs.missing, 1):
        if launcher.stop_signal:
            break
        composed = jobs.compose(number)  # while earlier jobs run
        while running and not launcher.num_free:
            jobs.end(launcher.wait())
            running -= 1
        if composed is not None and not launcher.stop_signal:
            jobs.start(number)
            launcher.start_composed(composed, more=position < len(jobs.missing))
            running += 1
    for _ in range(running):
        jobs.end(launcher.wait())
