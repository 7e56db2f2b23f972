"""Tries a growth schedule without training: what its operations make of a model, or why one cannot work."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.data.batch import BatchIterator, set_curriculum_alpha, vocabulary_of
from mlxlab.errors import UserError
from mlxlab.extensions.growth.grow import grow, training_of
from mlxlab.extensions.growth.operations.changes import changes_architecture
from mlxlab.extensions.growth.operations.grow_vocabulary import with_vocabulary
from mlxlab.extensions.growth.operations.schema import Operation
from mlxlab.extensions.growth.schedule import due_steps, find_late, misfit, options_text, waits_for
from mlxlab.markdown import markdown_table
from mlxlab.models.build import Architecture
from mlxlab.models.model import count_parameters
from mlxlab.training.state import TrainState

HEAD = ["", "id", "operation", "when", "model", "parameters"]


class Preview(NamedTuple):
    """A model after an operation; `misfit` says why that will be skipped."""

    architecture: Architecture
    parameters: int
    misfit: str = ""


def preview(
    operations: Sequence[Operation], state: TrainState, skipped: Sequence[str] = ()
) -> list[Preview]:
    """The model of a state, and that after each operation. Nothing is drawn, computed or changed.

    Args:
        skipped: operations before these that failed; what they made impossible will be skipped too.

    Raises:
        ConfigError: an operation cannot work, and none was skipped before it; names it.
    """
    training, vocabulary = training_of(state), vocabulary_of(state.data)
    previews = [Preview(state.architecture, count_parameters(state.model))]
    for operation in operations:
        try:
            if changes_architecture(operation):
                grown = grow(
                    with_vocabulary(operation, vocabulary), training, state.new_training, None
                )
                training = grown.training
                previews.append(Preview(training.architecture, count_parameters(grown.model)))
            else:
                check_settings(operation, state.data)
                previews.append(previews[-1]._replace(misfit=""))
        except UserError as error:
            if not skipped:
                raise misfit(operation, error) from None
            reason = f"will be skipped, as {', '.join(skipped)} before it was: {error}"
            previews.append(previews[-1]._replace(misfit=reason))
    return previews


def check_settings(operation: Any, data: BatchIterator) -> None:
    """ConfigError if the data cannot take what the operation sets; they are left as they are."""
    if operation["op"] == "set_batch_size":
        before = data.batch_size
        data.resize(operation["batch_size"])
        data.resize(before)
    if operation["op"] == "set_curriculum":
        position = data.state_dict()
        set_curriculum_alpha(data, operation["alpha"])
        data.load_state_dict(position)


def preview_table(
    operations: Sequence[Operation],
    progress: GrowthProgress,
    previews: Sequence[Preview],
    step: int,
    planned_steps: int | None = None,
) -> str:
    """A schedule as a table: the operations that are left, what each changes, and the parameters after it.

    Args:
        previews: of those operations.
        step: at which the run starts.
        planned_steps: of the whole run, None if unknown.
    """
    done = len(progress.done)
    start = f"step {step}" if step else "start"
    rows = [
        [str(done), "", start, "", _sizes(previews[0].architecture), f"{previews[0].parameters:,}"]
    ]
    due = due_steps(operations[done:], progress.step, step)
    late = find_late(operations[done:], due, planned_steps)
    since: int | None = progress.step
    for number, operation in enumerate(operations[done:], 1):
        before, after = previews[number - 1 : number + 1]
        title = f"{operation['op']} {options_text(operation)}".rstrip()
        since = (
            max(since, step + 1 - operation["when"].get("or_steps", 0))
            if since is not None
            else None
        )
        when = waits_for(operation["when"], since) + (
            ", then evaluate" if operation.get("then") else ""
        )
        when += f" ({late[number - 1]})" if late[number - 1] else ""
        since = due[number - 1].step if due[number - 1].exact else None
        changes = after.misfit or _changes(before.architecture, after.architecture) or "unchanged"
        rows.append(
            [str(done + number), operation["id"], title, when, changes, f"{after.parameters:,}"]
        )
    return markdown_table(HEAD, rows, align="rllllr")


def _sizes(architecture: Architecture) -> str:
    keys = ("num_layers", "hidden_size", "num_heads", "intermediate_size")
    sizes = [f"{key}={architecture.node[key]}" for key in keys if key in architecture.node]
    return ", ".join([*sizes, f"vocab_size={architecture.vocab_size}"])


def _changes(before: Architecture, after: Architecture) -> str:
    def shown(value: Any) -> str:
        return str(value.get("rank")) if isinstance(value, dict) else str(value)

    changed = [key for key, value in after.node.items() if before.node.get(key) != value]
    lines = [f"{key}={shown(after.node[key])}" for key in changed]
    return ", ".join(
        lines
        + ([f"vocab_size={after.vocab_size}"] if after.vocab_size != before.vocab_size else [])
    )
