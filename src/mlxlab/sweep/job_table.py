"""The jobs of a sweep as a table: what differs between them, and what came of each."""

from collections import Counter

from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.markdown import markdown_table
from mlxlab.sweep.job_journal import Job

_MAX_ROWS = 100


def job_table(jobs: list[Job], objective: str) -> str:
    """A row per job; of more than 100 jobs those that did not finish first."""
    keys = varying_keys(jobs)
    shown = sorted(jobs, key=lambda job: job.state == "finished") if len(jobs) > _MAX_ROWS else jobs
    rows = [_row(job, keys) for job in shown[:_MAX_ROWS]]
    columns = ["job", *keys, "state", "attempts", "seconds", objective, "reason"]
    lines = [markdown_table(columns, rows, "l")]
    if len(jobs) > _MAX_ROWS:
        lines.append(f"... and {len(jobs) - _MAX_ROWS} more")
    counts = Counter(job.state for job in jobs)
    return "\n".join(
        [*lines, "", ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))]
    )


def varying_keys(jobs: list[Job]) -> list[str]:
    """The keys and groups whose overrides are not the same in all jobs."""
    values: dict[str, set[str]] = {}
    for name in dict.fromkeys(override_name(text) for job in jobs for text in job.overrides):
        values[name] = {_value(job, name) for job in jobs}
    return [name for name, different in values.items() if len(different) > 1]


def _value(job: Job, name: str) -> str:
    return next(
        (text.partition("=")[2] for text in job.overrides if override_name(text) == name), ""
    )


def _row(job: Job, keys: list[str]) -> list[str]:
    value = "" if job.value is None else f"{job.value:.6g}"
    point = [one_line(_value(job, key), 40) for key in keys]
    reason = one_line(job.reason, 120).replace("|", "/")
    return [
        str(job.number),
        *point,
        job.state,
        str(job.attempts),
        f"{job.seconds:.1f}",
        value,
        reason,
    ]
