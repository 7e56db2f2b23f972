"""The result of a job, from what its process reported and how it ended."""

import math
import signal
from contextlib import suppress

from mlxlab.sweep.launcher.job_run import Report
from mlxlab.sweep.launcher.jobs import ComposedJob, JobResult

TIMEOUT = 124  # exit code, as that of the command timeout
_FAILED = 1


def job_result(
    job: ComposedJob, report: Report, *, attempts: int, seconds: float, peak_bytes: int = 0
) -> JobResult:
    """A job without a finite value has failed, or was stopped by a signal."""
    numbers = (attempts, seconds, job.folder, peak_bytes)
    if report.interrupted:
        return JobResult(job.number, "stopped", None, report.reason, report.exit_code, *numbers)
    if report.value is not None and math.isfinite(report.value):
        return JobResult(job.number, "finished", report.value, "", 0, *numbers)
    reason = report.reason or f"{job.config.objective} is {report.value}"
    return JobResult(job.number, "failed", None, reason, report.exit_code or _FAILED, *numbers)


def crash(exit_code: int) -> Report:
    """The report of a process that ended without one; a negative exit code is a signal."""
    if exit_code >= 0:
        return Report(
            None,
            f"exited with code {exit_code} before its end",
            exit_code or _FAILED,
            interrupted=False,
        )
    name = f"signal {-exit_code}"
    with suppress(ValueError):
        name = signal.Signals(-exit_code).name
    return Report(None, f"killed by {name}", 128 - exit_code, interrupted=False)
