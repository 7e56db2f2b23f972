"""A growth schedule: which operations are done, and which one is due."""

import hashlib
import json
from collections.abc import Sequence

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError, DataError
from mlxlab.growth.operations.schema import Operation
from mlxlab.growth.operations.settings import When

KEY = "callbacks.growth.operations"


def operation_hashes(operations: Sequence[Operation]) -> list[str]:
    """For each operation the SHA-256, shortened, of its content and that of all before it."""
    result, before = [], ""
    for operation in operations:
        content = json.dumps(operation, sort_keys=True)
        before = hashlib.sha256(f"{before}{content}".encode()).hexdigest()[:16]
        result.append(before)
    return result


def check_progress(operations: Sequence[Operation], progress: GrowthProgress) -> None:
    """ConfigError unless the operations that are done are the first ones of the schedule, unchanged."""
    current = operation_hashes(operations)
    if len(progress.done) != len(progress.hashes):
        counts = f"{len(progress.done)} operations, {len(progress.hashes)} hashes"
        raise DataError(f"growth of the checkpoint: expected as many hashes as operations that are done, got {counts}")
    for number, (name, content_hash) in enumerate(zip(progress.done, progress.hashes, strict=True)):
        if number >= len(current) or current[number] != content_hash:
            now = f"now {operations[number]['id']}" if number < len(current) else "now missing"
            raise ConfigError(
                f"{KEY}.{number}: {name} is done and cannot change ({now}, or other values); change only those after"
                f" the first {len(progress.done)}"
            )


def is_due(when: When, metric: float | None, steps: int) -> bool:
    """Whether an operation runs, by the metric of an evaluation just made, or the steps since the one before."""
    below, above, limit = when.get("metric_below"), when.get("metric_above"), when.get("or_steps")
    if metric is not None and ((below is not None and metric < below) or (above is not None and metric > above)):
        return True
    return limit is not None and steps >= limit
