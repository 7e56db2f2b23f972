"""Runs as JSON for programs. Times are in UTC; null stands for NaN and infinities, which JSON does not have."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from mlxlab.tracking.runs.reader import RunRow


def print_json(value: object) -> None:
    print(json.dumps(_finite(value), indent=1))


def run_as_json(run: RunRow, **more: object) -> dict[str, object]:
    """All that was read of a run."""
    facts = {"run_id": run.run_id, "uid": run.uid, "name": run.name, "experiment": run.experiment}
    facts |= {"status": run.status, "start": _time(run.start), "end": _time(run.end)}
    facts |= {"parent": run.parent, "folder": run.folder}
    return {**facts, **more, "metrics": run.metrics, "params": run.params, "tags": run.tags}


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
