"""Changes the model and the settings of a run on the way, by a schedule of operations."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlxlab.data.batch import set_curriculum_alpha
from mlxlab.data.vocabulary.remapping import vocabulary_of
from mlxlab.errors import ConfigError, UserError
from mlxlab.growth.operations.schema import Operation
from mlxlab.growth.schedule import KEY, check_progress, is_due, operation_hashes
from mlxlab.models.build import Architecture
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.device_batch import to_device
from mlxlab.training.optim.groups import describe_changes
from mlxlab.training.optim.optimizers import assign_leaves, flatten_arrays
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

PROBE_ROWS = 2  # of the batch, on which the outputs before and after are compared
MAX_CHANGE = 1e-4  # of an output, as a multiple of the largest one, or of 1 if that is larger


class Change(NamedTuple):
    """An operation that was tried: its metrics, a line on what it does, and a function that keeps it."""

    metrics: dict[str, float]
    text: str
    keep: Callable[[], None]


class GrowthSchedule(Callback):
    """Runs operations in their order, each once it is due: layers are added, weights frozen, settings changed.

    The outputs of the model stay the same at the moment of an operation, unless it says otherwise.

    Args:
        operations: each with an `id`, the name of the operation (`op`) and its options, and what it waits for (`when`);
            `then: evaluate` evaluates after it.
        on_error: what an operation does that does not fit the model: raise ends the run, skip continues without it.
    """

    runs_on_all_ranks = True

    def __init__(self, operations: Sequence[Operation], on_error: Literal["raise", "skip"], *, seed: int = 0) -> None:
        self.operations, self.on_error, self.seed = list(operations), on_error, seed

    def on_start(self, context: FitContext, state: TrainState) -> None:
        growth = state.progress.growth
        check_progress(self.operations, growth)
        if growth.done:
            logger.info(f"growth: {len(growth.done)} of {len(self.operations)} done")
            last, evaluated_at = self.operations[len(growth.done) - 1], {at for at, _ in state.history.evaluations[-1:]}
            interrupted = growth.step == state.progress.step and growth.step not in evaluated_at
            context.control.evaluation_requested |= interrupted and last.get("then") == "evaluate"

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        growth = state.progress.growth
        while (number := len(growth.done)) < len(self.operations) and self._is_due(context, state, result):
            operation = self.operations[number]
            self._run(context, state, result, operation)
            growth.done.append(operation["id"])
            growth.hashes.append(operation_hashes(self.operations)[number])
            growth.step = state.progress.step
            context.control.rebuild = True
            context.control.save_requested |= context.group.rank == 0
            if operation.get("then") == "evaluate":
                # The evaluation before the operation is replaced; without one, a resumed run makes it.
                state.history.discard_evaluation(growth.step, context.monitor)
                context.control.evaluation_requested = True
                return

    def _is_due(self, context: FitContext, state: TrainState, result: StepResult) -> bool:
        """Decided by rank 0, where the others know that there is something to decide."""
        growth = state.progress.growth
        when, steps = self.operations[len(growth.done)]["when"], state.progress.step - growth.step
        evaluations = state.history.evaluations
        metric = evaluations[-1][1] if result.evaluation is not None and evaluations else None
        if metric is None and not is_due(when, None, steps):
            return False
        decision = int(is_due(when, metric, steps)) if context.group.rank == 0 else 0
        return context.group.all_reduce_max([decision]) == [1]

    def _run(self, context: FitContext, state: TrainState, result: StepResult, operation: Operation) -> None:
        """Runs one operation; the state is unchanged if it fails."""
        number, step = len(state.progress.growth.done) + 1, state.progress.step
        title = f"growth: {operation['id']} ({operation['op']}), {number} of {len(self.operations)}"
        error: Exception | None = None
        try:
            change = self._prepare(context, state, result, operation)
        except (UserError, ValueError, RuntimeError, MemoryError) as caught:
            error = caught
        if context.group.all_reduce_max([error is not None]) == [1]:
            change = Change({}, f"skipped: {self._skip(operation, error)}", lambda: None)
            logger.warning(f"step {step}: {title}: {change.text}")
        else:
            logger.info(f"step {step}: {title}: {change.text}")
        change.keep()
        text = change.text
        context.log(state, {"growth/done": float(number), **change.metrics})
        state.history.events.append((step, f"{title}: {text}"))
        context.tracker.set_tags({f"growth.{number}": f"step {step}: {operation['id']}: {text}"})

    def _skip(self, operation: Operation, error: Exception | None) -> str:
        """Why an operation is skipped, on all processes alike; raises where it has to end the run."""
        reason = error or ConfigError("failed in another process")
        if self.on_error == "skip":
            return str(reason)
        if isinstance(reason, UserError):
            raise ConfigError(f"{KEY}: {operation['id']}: {reason}") from None
        raise reason

    def _prepare(self, context: FitContext, state: TrainState, result: StepResult, operation: Any) -> Change:
        """An operation that fits. Settings are changed already: they fail on all processes alike."""
        from mlxlab.growth.operations.changes import CHANGES

        if operation["op"] in CHANGES:
            return self._change_model(context, state, result, operation)
        from mlxlab.growth.operations.settings import change_settings

        progress = state.progress
        if operation["op"] == "set_batch_size":
            state.resize(operation["batch_size"])
        else:
            settings = change_settings(operation, progress.settings, int(progress.schedule_step))
            if settings.curriculum != progress.settings.curriculum:
                set_curriculum_alpha(state.data, operation["strength"])
            progress.settings = settings
        options = {key: value for key, value in operation.items() if key not in ("id", "op", "when", "then")}
        return Change({}, ", ".join(f"{key}={value}" for key, value in options.items()), lambda: None)

    def _change_model(self, context: FitContext, state: TrainState, result: StepResult, operation: Any) -> Change:
        from mlxlab.growth.grow import Training, grow
        from mlxlab.growth.operations.grow_vocabulary import Probe, with_vocabulary
        from mlxlab.growth.optimizer_state import average_of
        from mlxlab.models.model import count_parameters

        operation = with_vocabulary(operation, vocabulary_of(state.data))
        probe = Probe(operation.get("vocabulary"))
        with state.eval_weights() as evaluated:
            outputs = probe_outputs(evaluated, result, probe.before)
        built: list[nn.Module] = []

        def new_state(after: Architecture) -> tuple[dict[str, mx.array], dict[str, mx.array]]:
            built.append(state.new_model(after))
            template = state.new_optimizer(built[0])
            return dict(tree_flatten(built[0].parameters())), flatten_arrays(template.state)

        weights = dict(tree_flatten(state.model.parameters()))
        before = Training(state.architecture, weights, flatten_arrays(state.optimizer.state))
        after, counts, sources = grow(operation, before, new_state, self.seed)
        mx.eval(after.weights, after.optimizer)
        [model] = built
        model.load_weights(list((after.weights | average_of(after.optimizer)).items()))
        change = largest_change(outputs, probe.core_outputs(probe_outputs(model, result, probe.after)))
        if preserves_outputs(operation):
            check_change(change, outputs)
        model.load_weights(list(after.weights.items()))

        def keep() -> None:
            state.replace_model(model, after.architecture)
            assign_leaves(state.optimizer.state, after.optimizer)

        parameters = count_parameters(model)
        metrics = {
            "growth/parameters": float(parameters),
            "growth/output_change": change,
            "growth/state_carried": float(counts.carried),
            "growth/state_fresh": float(counts.fresh),
            "growth/state_dropped": float(counts.dropped),
        }
        text = f"{count_parameters_of(before.weights):,} -> {parameters:,} parameters; optimizer state: {counts}"
        options = context.metadata["config"].get("trainer", {}).get("optimizer", {})
        origins = {path: source.path for path, source in sources.items()}
        if changes := describe_changes([*before.weights], [*after.weights], origins, options):
            text += f"; {changes}"
        return Change(metrics, text, keep)


def probe_outputs(model: nn.Module, result: StepResult, ids: Callable[[np.ndarray], np.ndarray]) -> mx.array | None:
    """The outputs on the first rows of the batch, with other `ids`, in evaluation mode; None without a batch.

    Computed on the CPU: a GPU may round the factors of a product to TF32, which changes outputs by 1e-3.
    """
    if not result.trained:
        return None
    was_training = model.training
    model.eval()
    with mx.stream(mx.cpu):
        batch = to_device(result.batch._replace(tokens=ids(result.batch.tokens)))
        outputs: mx.array = model(batch.tokens[:PROBE_ROWS], batch.segment_ids[:PROBE_ROWS])
        mx.eval(outputs)
    model.train(was_training)
    return outputs


def largest_change(before: mx.array | None, after: mx.array | None) -> float:
    """The largest absolute difference, over the outputs that both have; 0 without any."""
    if before is None or after is None:
        return 0.0
    columns = min(before.shape[-1], after.shape[-1])
    return float(mx.abs(before[..., :columns] - after[..., :columns]).max())


def preserves_outputs(operation: Any) -> bool:
    """False where the operation says that it changes what the model computes."""
    return bool(operation.get("preserve", True)) and not (operation["op"] == "widen" and operation.get("noise"))


def check_change(change: float, outputs: mx.array | None) -> None:
    """ConfigError if outputs of the size of `outputs` changed by more than rounding does.

    Weights are float32 in every step, and those in few bits are copied as they are: nothing else is rounded.
    """
    limit = MAX_CHANGE * max(1.0, 0.0 if outputs is None else float(mx.abs(outputs).max()))
    if not change <= limit:  # also where it is NaN
        raise ConfigError(f"expected outputs within {limit:.2g} of those before, got a change of {change:.2g}")


def count_parameters_of(arrays: dict[str, mx.array]) -> int:
    return sum(array.size for array in arrays.values())
