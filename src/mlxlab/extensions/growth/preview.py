"""Tries a growth schedule without training: what its operations make of a model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.data.batch import BatchIterator, set_curriculum_alpha
from mlxlab.errors import UserError
from mlxlab.extensions.growth.grow import grow, training_of
from mlxlab.extensions.growth.operations.changes import changes_architecture
from mlxlab.extensions.growth.operations.schema import Operation
from mlxlab.extensions.growth.schedule import misfit, options_text, waits_for
from mlxlab.models.build import Architecture
from mlxlab.models.model import count_parameters
from mlxlab.terminal.tables import markdown_table
from mlxlab.training.state import TrainState

HEAD = ["", "id", "operation", "when", "model", "parameters"]
SIZES = ("num_layers", "hidden_size", "num_heads", "intermediate_size")


class Preview(NamedTuple):
    """A model after an operation."""

    architecture: Architecture
    parameters: int


def preview(operations: Sequence[Operation], state: TrainState) -> list[Preview]:
    """The model of a state, and that after each operation. Nothing is drawn, computed or changed.

    Raises ConfigError for an operation that cannot work; names it.
    """
    training = training_of(state)
    previews = [Preview(state.architecture, count_parameters(state.model))]
    for operation in operations:
        after = previews[-1]
        try:
            if changes_architecture(operation):
                grown = grow(operation, training, state.new_training, None)
                training = grown.training
                after = Preview(training.architecture, count_parameters(grown.model))
            else:
                check_settings(operation, state.data)
        except UserError as error:
            raise misfit(operation, error) from None
        previews.append(after)
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
) -> str:
    """A schedule as a table: the operations that are left, and the model after each.

    Args:
        previews: of those operations.
        step: at which the run starts.
    """
    done = len(progress.done)
    first = previews[0]
    sizes = {key: first.architecture.node.get(key) for key in SIZES}
    sizes["vocab_size"] = first.architecture.vocab_size
    start = f"step {step}" if step else "start"
    rows = [[str(done), "", start, "", _settings(sizes), f"{first.parameters:,}"]]
    for number, operation in enumerate(operations[done:]):
        before, after = previews[number : number + 2]
        when = waits_for(operation["when"])
        if operation.get("then"):
            when += ", then evaluate"
        rows.append(
            [
                str(done + number + 1),
                operation["id"],
                f"{operation['op']} {options_text(operation)}".rstrip(),
                when,
                _changes(before.architecture, after.architecture) or "unchanged",
                f"{after.parameters:,}",
            ]
        )
    return markdown_table(HEAD, rows, align="rllllr")


def _changes(before: Architecture, after: Architecture) -> str:
    old = {**before.node, "vocab_size": before.vocab_size}
    new = {**after.node, "vocab_size": after.vocab_size}
    return _settings({key: value for key, value in new.items() if old.get(key) != value})


def _settings(values: dict[str, Any]) -> str:
    texts = []
    for key, value in values.items():
        if value is not None or key == "adapter":
            shown = value.get("rank") if isinstance(value, dict) else value
            texts.append(f"{key}={shown}")
    return ", ".join(texts)
