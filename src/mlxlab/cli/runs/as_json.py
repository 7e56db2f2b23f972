"""Runs as JSON for programs. Times are in UTC."""

from collections.abc import Mapping
from datetime import UTC, datetime

from mlxlab.tracking.runs.reader import RunRow


def run_as_json(
    run: RunRow, best: Mapping[str, float | None] = {}, **more: object
) -> dict[str, object]:
    """All that was read of a run; `best` adds best values of metrics to that of the objective."""
    facts = {"run_id": run.run_id, "uid": run.uid, "name": run.name, "experiment": run.experiment}
    facts |= {"status": run.status, "start": _time(run.start), "end": _time(run.end)}
    facts |= {"parent": run.parent, "folder": run.folder}
    return {
        **facts,
        "best": {**run.best, **best},
        **more,
        "metrics": run.metrics,
        "params": run.params,
        "tags": run.tags,
    }


def _time(ms: int | None) -> str | None:
    return (
        None
        if ms is None
        else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    )
