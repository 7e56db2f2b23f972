"""Applies an operation of a growth schedule to the state of a run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxlab.data.batch import set_curriculum_alpha
from mlxlab.errors import ConfigError, UserError
from mlxlab.extensions.growth.grow import grow, training_of
from mlxlab.extensions.growth.operations.changes import changes_architecture
from mlxlab.extensions.growth.operations.schema import (
    ArchitectureOperation,
    Operation,
)
from mlxlab.extensions.growth.optimizer_state import average_of
from mlxlab.extensions.growth.schedule import options_text
from mlxlab.models.model import count_parameters
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
    change = largest_change(outputs, probe_outputs(model, result))
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


def probe_outputs(model: nn.Module, result: StepResult) -> mx.array | None:
    """The outputs on the batch, in evaluation mode; None without a batch.

    Computed on the CPU: a GPU may round the factors of a product, which changes outputs by 1e-3.
    """
    if not result.trained:
        return None
    was_training = model.training
    model.eval()
    with mx.stream(mx.cpu):
        batch = to_device(result.batch)
        outputs: mx.array = model(batch.tokens[:ROWS], batch.segment_ids[:ROWS])
        mx.eval(outputs)
    model.train(was_training)
    return outputs


def largest_change(before: mx.array | None, after: mx.array | None) -> float:
    """The largest absolute difference, over the outputs that both have; 0 without any."""
    if before is None or after is None:
        return 0.0
    columns = min(before.shape[-1], after.shape[-1])
    return float(mx.abs(before[..., :columns] - after[..., :columns]).max())


def check_change(change: float, outputs: mx.array | None) -> None:
    """ConfigError if outputs of the size of `outputs` changed by more than rounding does."""
    largest = 0.0 if outputs is None else float(mx.abs(outputs).max())
    limit = MAX_CHANGE * max(1.0, largest)
    if not change <= limit:  # NaN is refused too.
        raise ConfigError(
            f"expected outputs within {limit:.2g} of those before, got a change of {change:.2g}"
        )
