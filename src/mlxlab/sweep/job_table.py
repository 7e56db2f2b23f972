"""The jobs of a sweep as a table: what differs between them, and what came of each."""

from collections import Counter

from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.markdown import markdown_table
from mlxlab.sweep.job import JobRecord

_MAX_ROWS = 100


def job_table(jobs: list[JobRecord], objective: str) -> str:
    """A row per job; of more than 100 jobs those that did not finish first."""
    keys = varying_keys(jobs)
    shown = sorted(jobs, key=lambda job: job.state == "finished" and len(jobs) > _MAX_ROWS)
    columns = ["job", *keys, "state", "attempts", "seconds", objective, "reason"]
    rows = [_row(job, keys) for job in shown[:_MAX_ROWS]]
    lines = [markdown_table(columns, rows, "l")]
    if len(jobs) > _MAX_ROWS:
        lines.append(f"... and {len(jobs) - _MAX_ROWS} more")
    counts = Counter(job.state for job in jobs)
    lines += ["", ", ".join(f"{counts[state]} {state}" for state in sorted(counts))]
    return "\n".join(lines)


def varying_keys(jobs: list[JobRecord]) -> list[str]:
    """The keys and groups whose overrides are not the same in all jobs."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for name, value in _values(job).items():
            values.setdefault(name, set()).add(value)
    counts = Counter(name for job in jobs for name in _values(job))
    return [name for name in values if len(values[name]) > 1 or counts[name] < len(jobs)]


def _values(job: JobRecord) -> dict[str, str]:
    """The values of the overrides of a job by name."""
    return {override_name(text): text.partition("=")[2] for text in job.overrides}


def _row(job: JobRecord, keys: list[str]) -> list[str]:
    values = _values(job)
    point = [one_line(values.get(key, ""), 40) for key in keys]
    value = "" if job.value is None else f"{job.value:.6g}"
    reason = one_line(job.reason, 120).replace("|", "/")
    seconds = f"{job.seconds:.1f}"
    return [str(job.number), *point, job.state, str(job.attempts), seconds, value, reason]
