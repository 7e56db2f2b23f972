"""Tries the operations of a growth schedule before a run, and applies them during it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.data.batch import BatchIterator, set_curriculum_alpha
from mlxlab.errors import ConfigError, UserError
from mlxlab.extensions.growth.grow import changes_architecture, grow, training_of
from mlxlab.extensions.growth.operations.schema import (
    ArchitectureOperation,
    Operation,
)
from mlxlab.extensions.growth.optimizer_state import average_of
from mlxlab.extensions.growth.schedule import misfit, options_text, waits_for
from mlxlab.models.model import count_parameters
from mlxlab.terminal.tables import markdown_table
from mlxlab.training.device_batch import to_device
from mlxlab.training.optim.optimizers import assign_leaves
from mlxlab.training.state import StepResult, TrainState

FAILURES = (UserError, ValueError, RuntimeError, MemoryError)
SETTINGS = ("learning_rate", "accumulate", "eval_every", "eval_batches")  # Operations name them so.
ROWS = 2  # rows of the batch that measures a change
MAX_CHANGE = 1e-4  # relative to the largest output, or to 1 if that is larger


class Change(NamedTuple):
    """An operation that was tried: its metrics, a line on what it does, and how to keep it."""

    metrics: dict[str, float]
    text: str
    keep: Callable[[], None]


def prepare(operation: Operation, state: TrainState, result: StepResult, seed: int) -> Change:
    """An operation that fits; nothing is changed before it is kept.

    Args:
        seed: of what is drawn.

    Raises:
        FAILURES: it does not fit, or cannot be computed.
    """
    if changes_architecture(operation):
        return _prepare_model(operation, state, result, seed)
    return Change({}, options_text(operation), partial(_set, operation, state))


def _set(operation: Any, state: TrainState) -> None:
    """Changes the setting that an operation names."""
    changes: dict[str, Any] = {key: operation[key] for key in SETTINGS if operation.get(key)}
    match operation["op"]:
        case "set_batch_size":
            state.resize(operation["batch_size"])
        case "rewarm":
            step = int(state.progress.schedule_step)
            changes = {"warmup_start": step, "warmup_steps": operation["steps"]}
            if operation.get("restart"):
                changes["schedule_start"] = step
        case "set_curriculum":
            set_curriculum_alpha(state.data, operation["alpha"])
            changes = {"curriculum_alpha": operation["alpha"]}
    state.progress.settings = replace(state.progress.settings, **changes)


def _prepare_model(
    operation: ArchitectureOperation, state: TrainState, result: StepResult, seed: int
) -> Change:
    with state.eval_weights() as evaluated:
        outputs = probe_outputs(evaluated, result)
    after, model, report = grow(operation, training_of(state), state.new_training, seed)
    mx.eval(after.weights, after.optimizer)
    model.load_weights(list((after.weights | average_of(after.optimizer)).items()))
    new_outputs = probe_outputs(model, result)
    columns = min(outputs.shape[-1], new_outputs.shape[-1])
    change = float(mx.abs(outputs[..., :columns] - new_outputs[..., :columns]).max())
    if operation.get("preserve", True):
        check_change(change, outputs)
    model.load_weights(list(after.weights.items()))

    def keep() -> None:
        state.replace_model(model, after.architecture)
        assign_leaves(state.optimizer.state, after.optimizer)

    parameters = count_parameters(model)
    metrics = {
        "growth/parameters": float(parameters),
        "growth/output_change": change,
        "growth/state_carried": float(report.carried),
        "growth/state_fresh": float(len(report.fresh)),
        "growth/state_dropped": float(len(report.dropped)),
    }
    sizes = f"{count_parameters(state.model):,} -> {parameters:,} parameters"
    return Change(metrics, f"{sizes}; {report.line()}", keep)


def probe_outputs(model: nn.Module, result: StepResult) -> mx.array:
    """The outputs on the batch, in evaluation mode; a zero without a batch.

    Computed on the CPU: a GPU may round the factors of a product, which changes outputs by 1e-3.
    """
    if not result.trained:
        return mx.zeros(1)
    was_training = model.training
    model.eval()
    with mx.stream(mx.cpu):
        batch = to_device(result.batch)
        outputs: mx.array = model(batch.tokens[:ROWS], batch.segment_ids[:ROWS])
        mx.eval(outputs)
    model.train(was_training)
    return outputs


def check_change(change: float, outputs: mx.array) -> None:
    """ConfigError if outputs of the size of `outputs` changed by more than rounding does."""
    limit = MAX_CHANGE * max(1.0, float(mx.abs(outputs).max()))
    if not change <= limit:  # NaN is refused too.
        raise ConfigError(
            f"expected outputs within {limit:.2g} of those before, got a change of {change:.2g}"
        )


def preview(operations: Sequence[Operation], state: TrainState) -> list[int]:
    """The parameters of the model of a state, and after each operation. Nothing is drawn, computed or changed.

    Raises ConfigError for an operation that cannot work; names it.
    """
    training = training_of(state)
    counts = [count_parameters(state.model)]
    for operation in operations:
        count = counts[-1]
        try:
            if changes_architecture(operation):
                grown = grow(operation, training, state.new_training, None)
                training = grown.training
                count = count_parameters(grown.model)
            else:
                check_settings(operation, state.data)
        except UserError as error:
            raise misfit(operation, error) from None
        counts.append(count)
    return counts


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
    operations: Sequence[Operation], progress: GrowthProgress, counts: Sequence[int], step: int
) -> str:
    """A schedule as a table: the operations that are left, and the parameters after each.

    Args:
        counts: of `preview`, for these operations.
        step: at which the run starts.
    """
    done = len(progress.done)
    start = f"step {step}" if step else "start"
    rows = [[str(done), "", start, "", f"{counts[0]:,}"]]
    for number, (operation, count) in enumerate(
        zip(operations[done:], counts[1:], strict=True), done + 1
    ):
        when = waits_for(operation["when"])
        if operation.get("then"):
            when += ", then evaluate"
        text = f"{operation['op']} {options_text(operation)}".rstrip()
        rows.append([str(number), operation["id"], text, when, f"{count:,}"])
    head = ["", "id", "operation", "when", "parameters"]
    return markdown_table(head, rows, align="rlllr")
