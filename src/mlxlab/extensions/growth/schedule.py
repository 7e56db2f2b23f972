"""A growth schedule: its operations, which of them are done, and which one is due."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.extensions.growth.operations.schema import Operation
from mlxlab.extensions.growth.operations.settings import When

KEY = "callbacks.growth.operations"


def operation_hashes(operations: Sequence[Operation]) -> list[str]:
    """For each operation the SHA-256, shortened, of its content and that of all before it."""
    result, before = [], ""
    for operation in operations:
        content = json.dumps(operation, sort_keys=True)
        before = hashlib.sha256(f"{before}{content}".encode()).hexdigest()[:16]
        result.append(before)
    return result


def check_progress(
    operations: Sequence[Operation], progress: GrowthProgress, saved: object = None
) -> None:
    """ConfigError unless the operations that are done are the first ones of the schedule, unchanged.

    Args:
        saved: the operations in the config of the checkpoint, unchecked, to say what differs.
    """
    current = operation_hashes(operations)
    if len(progress.done) != len(progress.hashes):
        counts = f"{len(progress.done)} operations, {len(progress.hashes)} hashes"
        raise DataError(
            f"growth of the checkpoint: expected as many hashes as operations that are done, got {counts}"
        )
    if unknown := [name for name in progress.skipped if name not in progress.done]:
        raise DataError(
            f"growth of the checkpoint: expected skipped operations that are done, got {unknown[0]}"
        )
    for number, (name, content_hash) in enumerate(zip(progress.done, progress.hashes, strict=True)):
        if number >= len(current) or current[number] != content_hash:
            before = saved[number] if isinstance(saved, list) and number < len(saved) else None
            after = operations[number] if number < len(current) else None
            rest = f"change only those after the first {len(progress.done)}"
            raise ConfigError(
                f"{KEY}.{number}: {name} is done and cannot change: {_difference(before, after)}; {rest}"
            )


def _difference(before: object, after: Operation | None) -> str:
    """The first value in which an operation differs from the one that was made."""
    if after is None:
        return "expected it in the schedule, got none"
    old, new = before if isinstance(before, dict) else {}, dict(after)
    if key := next((key for key in {**old, **new} if old and old.get(key) != new.get(key)), None):
        return f"{key}: expected {old.get(key, 'none')}, got {new.get(key, 'none')}"
    return f"got {after['id']} with other values"


def record_done(
    operations: Sequence[Operation], progress: GrowthProgress, step: int, *, is_skipped: bool
) -> None:
    """Adds the next operation to the progress, at a step."""
    number = len(progress.done)
    progress.done.append(operations[number]["id"])
    progress.skipped += [operations[number]["id"]] if is_skipped else []
    progress.hashes.append(operation_hashes(operations)[number])
    progress.step = step


def is_due(when: When, metric: float | None, steps: int) -> bool:
    """Whether an operation runs, by the metric of an evaluation just made, or the steps since the one before."""
    below, above, limit = when.get("metric_below"), when.get("metric_above"), when.get("or_steps")
    if metric is not None and (
        (below is not None and metric < below) or (above is not None and metric > above)
    ):
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


class Due(NamedTuple):
    """The first step at which an operation can run; where it is `exact` it runs then, if the run is that long."""

    step: int
    exact: bool


def due_steps(operations: Sequence[Operation], since: int, step: int) -> list[Due]:
    """When the operations that are left can run in a run at `step`; `since` is that of the operation before them."""
    result = []
    earliest, exact = since, True
    for operation in operations:
        when = operation["when"]
        exact = exact and when.keys() == {"or_steps"}
        earliest = max(
            earliest + (when["or_steps"] if when.keys() == {"or_steps"} else 0), step + 1
        )
        result.append(Due(earliest, exact))
    return result


def find_late(
    operations: Sequence[Operation], due: Sequence[Due], planned_steps: int | None
) -> list[str]:
    """For each operation why the run is too short for it, "" if it is not, or that is unknown."""
    result = []
    for operation, (step, _) in zip(operations, due, strict=True):
        is_late = planned_steps is not None and step > planned_steps
        late = f"not due before the run ends at step {planned_steps}"
        result.append(late if is_late else late_rewarm(operation, step, planned_steps))
        if operation["op"] == "set_batch_size":  # plans the run again
            planned_steps = None
    return result


def late_rewarm(operation: Any, step: int, planned_steps: int | None) -> str:
    """A line on a warm-up that begins after `step` and is longer than the rest of the run; "" if it is not."""
    if (
        operation["op"] != "rewarm"
        or planned_steps is None
        or step + operation["steps"] <= planned_steps
    ):
        return ""
    rest = f"the {max(planned_steps - step, 0)} steps left after step {step}"
    return f"a warm-up of {operation['steps']} steps is longer than {rest}"


def options_text(operation: Any) -> str:
    """The options of an operation: `map=[0, 0, 1], preserve=False`."""
    options = {
        key: value for key, value in operation.items() if key not in ("id", "op", "when", "then")
    }
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
