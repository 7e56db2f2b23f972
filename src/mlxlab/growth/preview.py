"""What a growth schedule makes of a model, without training: `mlxlab train --dry-run`."""

from collections.abc import Sequence
from typing import Any

from mlxlab.data.batch import Task
from mlxlab.data.vocabulary.vocabulary_map import VocabularyMap
from mlxlab.errors import ConfigError
from mlxlab.growth.operations.changes import CHANGES
from mlxlab.growth.operations.grow_vocabulary import with_vocabulary
from mlxlab.growth.operations.schema import Operation
from mlxlab.growth.schedule import KEY
from mlxlab.markdown import markdown_table
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.model import count_parameters

HEAD = ["", "id", "operation", "when", "model", "parameters"]


def preview(
    start: Architecture,
    task: Task,
    operations: Sequence[Operation],
    on_error: str,
    vocabulary: VocabularyMap | None = None,
) -> str:
    """A schedule as a table: each operation, what it changes, and the parameters after it.

    `vocabulary` is that of the data, from which a smaller one grows.

    Raises:
        ConfigError: an operation does not fit, and `on_error` is raise.
    """
    current, parameters = start, _count(start, task)
    rows = [["0", "", "start", "", _sizes(current), f"{parameters:,}"]]
    for number, operation in enumerate(operations, 1):
        changed = "unchanged"
        try:
            after = _after(with_vocabulary(operation, vocabulary), current)
            parameters = _count(after, task)
            changed, current = _changes(current, after) or changed, after
            vocabulary = None if operation["op"] == "grow_vocabulary" else vocabulary
        except ConfigError as error:
            if on_error == "raise":
                raise ConfigError(f"{KEY}: {operation['id']}: {error}") from None
            changed = f"skipped: {error}"
        rows.append([str(number), operation["id"], _title(operation), _when(operation), changed, f"{parameters:,}"])
    return markdown_table(HEAD, rows, align="rllllr")


def _after(operation: Operation, before: Architecture) -> Architecture:
    change = CHANGES.get(operation["op"])
    return before if change is None else change.node(operation, before)


def _count(architecture: Architecture, task: Task) -> int:
    """The parameters; nothing is allocated."""
    model = build_model(
        architecture.node,
        kind=task.kind,
        vocab_size=architecture.vocab_size,
        num_classes=task.num_classes,
        pair_separator=task.pair_separator,
    )
    return count_parameters(model)


def _sizes(architecture: Architecture) -> str:
    keys = ("num_layers", "hidden_size", "num_heads", "intermediate_size")
    sizes = [f"{key}={architecture.node[key]}" for key in keys if key in architecture.node]
    return ", ".join([*sizes, f"vocab_size={architecture.vocab_size}"])


def _changes(before: Architecture, after: Architecture) -> str:
    def shown(value: Any) -> str:
        return str(value.get("rank")) if isinstance(value, dict) else str(value)

    changed = [key for key, value in after.node.items() if before.node.get(key) != value]
    lines = [f"{key}={shown(after.node[key])}" for key in changed]
    return ", ".join(lines + ([f"vocab_size={after.vocab_size}"] if after.vocab_size != before.vocab_size else []))


def _title(operation: Any) -> str:
    options = {key: value for key, value in operation.items() if key not in ("id", "op", "when", "then")}
    return " ".join([operation["op"], *(f"{key}={value}" for key, value in options.items())])


def _when(operation: Operation) -> str:
    when = operation["when"]
    conditions = []
    if "metric_below" in when:
        conditions.append(f"objective < {when['metric_below']:g}")
    if "metric_above" in when:
        conditions.append(f"objective > {when['metric_above']:g}")
    if "or_steps" in when:
        conditions.append(f"after {when['or_steps']} steps")
    return " or ".join(conditions) + (", then evaluate" if operation.get("then") else "")
