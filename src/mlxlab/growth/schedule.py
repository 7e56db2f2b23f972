"""A growth schedule: its operations, which of them are done, and which one is due."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError, DataError, UserError
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
    if unknown := [name for name in progress.skipped if name not in progress.done]:
        raise DataError(f"growth of the checkpoint: expected skipped operations that are done, got {unknown[0]}")
    for number, (name, content_hash) in enumerate(zip(progress.done, progress.hashes, strict=True)):
        if number >= len(current) or current[number] != content_hash:
            now = f"now {operations[number]['id']}" if number < len(current) else "now missing"
            raise ConfigError(
                f"{KEY}.{number}: {name} is done and cannot change ({now}, or other values); change only those after"
                f" the first {len(progress.done)}"
            )


def record_done(operations: Sequence[Operation], progress: GrowthProgress, step: int, *, is_skipped: bool) -> None:
    """Adds the next operation to the progress, at a step."""
    number = len(progress.done)
    progress.done.append(operations[number]["id"])
    progress.skipped += [operations[number]["id"]] if is_skipped else []
    progress.hashes.append(operation_hashes(operations)[number])
    progress.step = step


def is_due(when: When, metric: float | None, steps: int) -> bool:
    """Whether an operation runs, by the metric of an evaluation just made, or the steps since the one before."""
    below, above, limit = when.get("metric_below"), when.get("metric_above"), when.get("or_steps")
    if metric is not None and ((below is not None and metric < below) or (above is not None and metric > above)):
        return True
    return limit is not None and steps >= limit


def waits_for(when: When, since: int | None = None) -> str:
    """What an operation waits for, in words; `since` is the step of the operation before, where it is known."""
    conditions = []
    if "metric_below" in when:
        conditions.append(f"objective < {when['metric_below']:g}")
    if "metric_above" in when:
        conditions.append(f"objective > {when['metric_above']:g}")
    if "or_steps" in when:
        steps = when["or_steps"]
        conditions.append(f"after {steps} steps" if since is None else f"step {since + steps}")
    return " or ".join(conditions)


def options_text(operation: Any) -> str:
    """The options of an operation: `map=[0, 0, 1], preserve=False`."""
    options = {key: value for key, value in operation.items() if key not in ("id", "op", "when", "then")}
    return ", ".join(f"{key}={value}" for key, value in options.items())


def count_done(operations: Sequence[Operation], progress: GrowthProgress) -> str:
    return f"{len(progress.done)} of {len(operations)} done"


def describe_remaining(operations: Sequence[Operation], progress: GrowthProgress) -> str:
    """The operations that are not done, and what the first of them waits for; "" if all are done."""
    if not (remaining := operations[len(progress.done) :]):
        return ""
    first, *others = remaining
    text = f"{first['id']} ({first['op']}) waits for {waits_for(first['when'], progress.step)}"
    return text + (", then " + ", ".join(each["id"] for each in others) if others else "")


def misfit(operation: Operation, error: UserError) -> ConfigError:
    """The error for an operation that cannot work."""
    return ConfigError(f"{KEY}: {operation['id']}: {error}")
