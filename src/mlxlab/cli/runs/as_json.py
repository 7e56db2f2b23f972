"""Runs as JSON for programs. Times are in UTC."""

from collections.abc import Mapping
from datetime import UTC, datetime

from mlxlab.tracking.runs.reader import RunRow


def run_as_json(
    run: RunRow, best: Mapping[str, float | None] = {}, **more: object
) -> dict[str, object]:
    """All that was read of a run; `best` adds best values of metrics to that of the objective."""
    times = {"start": _time(run.start), "end": _time(run.end)}
    return {**vars(run), **times, "best": {**run.best, **best}, **more}


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
