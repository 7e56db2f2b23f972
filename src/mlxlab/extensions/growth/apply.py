"""Applies an operation of a growth schedule to the state of a run."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import mlx.core as mx

from mlxlab.data.batch import set_curriculum_alpha, vocabulary_of
from mlxlab.errors import UserError
from mlxlab.extensions.growth.grow import grow, training_of
from mlxlab.extensions.growth.operations.changes import changes_architecture
from mlxlab.extensions.growth.operations.grow_vocabulary import with_vocabulary
from mlxlab.extensions.growth.operations.schema import ArchitectureOperation, Operation
from mlxlab.extensions.growth.operations.settings import change_settings
from mlxlab.extensions.growth.optimizer_state import average_of
from mlxlab.extensions.growth.probe import (
    Probe,
    check_change,
    largest_change,
    preserves_outputs,
    probe_outputs,
)
from mlxlab.extensions.growth.schedule import late_rewarm, options_text
from mlxlab.models.model import count_parameters
from mlxlab.training.optim.groups import (
    GroupOptions,
    describe_changes,
    group_changes,
    hyperparameters_by_path,
)
from mlxlab.training.optim.optimizers import assign_leaves
from mlxlab.training.state import StepResult, TrainState

FAILURES = (UserError, ValueError, RuntimeError, MemoryError)


class Change(NamedTuple):
    """An operation that was tried: its metrics, a line on what it does, and a function that keeps it."""

    metrics: dict[str, float]
    text: str
    keep: Callable[[], None]
    fits: bool = True


def skipped(error: Exception) -> Change:
    """The change of an operation that failed: none."""
    return Change({}, f"skipped: {error}", lambda: None, fits=False)


def prepare(
    operation: Operation, state: TrainState, result: StepResult, seed: int, optimizer: GroupOptions
) -> Change:
    """An operation that fits; nothing is changed before it is kept.

    Args:
        seed: of what is drawn.
        optimizer: the groups of weights in the config.

    Raises:
        FAILURES: it does not fit, or cannot be computed.
    """
    if changes_architecture(operation):
        return _prepare_model(operation, state, result, seed, optimizer)
    late = late_rewarm(operation, state.progress.step, state.planned_steps)
    return Change(
        {}, "; ".join(filter(None, [options_text(operation), late])), lambda: _set(operation, state)
    )


def keep(change: Change, state: TrainState) -> None:
    """Keeps a change; where that raises one of FAILURES, the state is as it was."""
    undo = _undo(state)
    try:
        change.keep()
    except FAILURES:
        undo()
        raise


def _undo(state: TrainState) -> Callable[[], None]:
    """A function that returns a state to the model, the settings and the data that it has now."""
    data, progress = state.data, state.progress
    model, optimizer, architecture, data_state = (
        state.model,
        state.optimizer,
        state.architecture,
        state.data_state,
    )
    settings, model_step = deepcopy(progress.settings), progress.model_step
    batch_size, position = data.batch_size, data.state_dict()

    def undo() -> None:
        if data.batch_size != batch_size:
            data.resize(batch_size)
        data.load_state_dict(position)
        state.model, state.optimizer, state.architecture, state.data_state = (
            model,
            optimizer,
            architecture,
            data_state,
        )
        progress.settings, progress.model_step = settings, model_step

    return undo


def _set(operation: Any, state: TrainState) -> None:
    progress = state.progress
    if operation["op"] == "set_batch_size":
        state.resize(operation["batch_size"])
        return
    settings = change_settings(operation, progress.settings, int(progress.schedule_step))
    if settings.curriculum_alpha != progress.settings.curriculum_alpha:
        set_curriculum_alpha(state.data, operation["alpha"])
    progress.settings = settings


def _prepare_model(
    operation: ArchitectureOperation,
    state: TrainState,
    result: StepResult,
    seed: int,
    optimizer: GroupOptions,
) -> Change:
    vocabulary = vocabulary_of(state.data)
    probe = Probe(vocabulary if operation["op"] == "grow_vocabulary" else None)
    before = training_of(state)
    with state.eval_weights() as evaluated:
        outputs = probe_outputs(evaluated, result, probe.before)
    grown = grow(with_vocabulary(operation, vocabulary), before, state.new_training, seed)
    after, model = grown.training, grown.model
    mx.eval(after.weights, after.optimizer)
    model.load_weights(list((after.weights | average_of(after.optimizer)).items()))
    change = largest_change(outputs, probe.core_outputs(probe_outputs(model, result, probe.after)))
    if preserves_outputs(operation):
        check_change(change, outputs)
    model.load_weights(list(after.weights.items()))

    def keep() -> None:
        state.replace_model(model, after.architecture)
        assign_leaves(state.optimizer.state, after.optimizer)

    parameters = count_parameters(model)
    text = f"{count_parameters(state.model):,} -> {parameters:,} parameters; optimizer state: {grown.counts}"
    origins = {path: source.path for path, source in grown.sources.items()}
    old, new = (hyperparameters_by_path([*each.weights], optimizer) for each in (before, after))
    if changes := describe_changes(group_changes(old, new, origins)):
        text += f"; {changes}"
    metrics = {"growth/parameters": float(parameters), "growth/output_change": change}
    counts = {
        f"growth/state_{name}": float(count) for name, count in grown.counts._asdict().items()
    }
    return Change(metrics | counts, text, keep)
