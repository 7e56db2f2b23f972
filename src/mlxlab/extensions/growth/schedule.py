"""A growth schedule: its operations, which of them are done, and which one is due."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.extensions.growth.operations.schema import Operation, When

KEY = "callbacks.growth.operations"
CONDITIONS = {
    "metric_below": "objective < {:g}",
    "metric_above": "objective > {:g}",
    "or_steps": "after {} steps",
}


def operation_hashes(operations: Sequence[Operation]) -> list[str]:
    """Hashes each operation with all before it: SHA-256, shortened."""
    hashes = []
    before = ""
    for operation in operations:
        content = json.dumps(operation, sort_keys=True)
        before = hashlib.sha256(f"{before}{content}".encode()).hexdigest()[:16]
        hashes.append(before)
    return hashes


def check_progress(operations: Sequence[Operation], progress: GrowthProgress) -> None:
    """ConfigError unless the operations that are done are the first ones, unchanged."""
    if len(progress.done) != len(progress.hashes):
        raise DataError("growth of the checkpoint: expected a hash for each operation that is done")
    hashes = operation_hashes(operations)
    for number, name in enumerate(progress.done):
        if hashes[number : number + 1] != [progress.hashes[number]]:
            raise ConfigError(
                f"{KEY}.{number}: {name} is done and cannot change;"
                f" change only those after the first {len(progress.done)}"
            )


def record_done(operations: Sequence[Operation], progress: GrowthProgress, step: int) -> None:
    """Adds the next operation to the progress, at a step."""
    number = len(progress.done)
    progress.done.append(operations[number]["id"])
    progress.hashes.append(operation_hashes(operations)[number])
    progress.step = step


def is_due(when: When, metric: float | None, steps: int) -> bool:
    """True by the metric of an evaluation just made, or the steps since the operation before."""
    if "or_steps" in when and steps >= when["or_steps"]:
        return True
    if metric is None:
        return False
    is_below = "metric_below" in when and metric < when["metric_below"]
    is_above = "metric_above" in when and metric > when["metric_above"]
    return is_below or is_above


def waits_for(when: Mapping[str, object]) -> str:
    """What an operation waits for, in words."""
    return " or ".join(text.format(when[key]) for key, text in CONDITIONS.items() if key in when)


def options_text(operation: Any) -> str:
    """The options of an operation: `map=[0, 0, 1], preserve=False`."""
    common = ("id", "op", "when", "then")
    options = [f"{key}={value}" for key, value in operation.items() if key not in common]
    return ", ".join(options)


def count_done(operations: Sequence[Operation], progress: GrowthProgress) -> str:
    return f"{len(progress.done)} of {len(operations)} done"


def misfit(operation: Operation, error: UserError) -> ConfigError:
    """The error for an operation that cannot work."""
    return ConfigError(f"{KEY}: {operation['id']}: {error}")
