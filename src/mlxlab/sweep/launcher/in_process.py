"""The launcher of `hydra/launcher=in_process`: every job in the process of the sweep, one after the other."""

import time
from collections import deque

from mlxlab.sweep.launcher.job_run import HydraJob
from mlxlab.sweep.launcher.jobs import ComposedJob, JobResult, SweepContext
from mlxlab.sweep.launcher.results import job_result


class InProcessLauncher:
    """Runs jobs in the process of the sweep: the cheapest way, for jobs of seconds. One that crashes ends the sweep.

    Args:
        retry_failed: start failed jobs again when a sweep is continued.
    """

    def __init__(self, retry_failed: bool, *, context: SweepContext) -> None:
        self.context, self.stop_signal = context, 0
        self._results: deque[JobResult] = deque()

    def __enter__(self) -> "InProcessLauncher":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def num_free(self) -> int:
        return 1 - len(self._results)

    def start(self, overrides: list[str], number: int, *, more: bool = True) -> None:
        self.start_composed(self.context.compose(overrides, number), more=more)

    def start_composed(self, job: ComposedJob, *, more: bool = True) -> None:
        """Runs it."""
        start = time.monotonic()
        report = HydraJob(job.config, self.context.task, self.context.callbacks).run()
        if report.interrupted:
            self.stop_signal = report.exit_code - 128
        self._results.append(job_result(job, report, attempts=1, seconds=time.monotonic() - start))

    def wait(self) -> JobResult:
        if not self._results:
            raise ValueError("no job was started")
        return self._results.popleft()
