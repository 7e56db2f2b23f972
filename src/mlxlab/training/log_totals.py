"""Logs the metrics of the steps since the last log line."""

from collections.abc import Iterable

from mlxlab import metric_names as names
from mlxlab.checkpoint.state import RunningTotals
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


def log_totals(
    context: FitContext, state: TrainState, result: StepResult, callbacks: Iterable[Callback] = ()
) -> None:
    """Logs means over the steps since the last log line, and what callbacks measure of this step.

    docs/reference/metrics.md documents the keys.
    """
    totals = state.running
    state.running = RunningTotals()
    weight = max(totals.weight, 1e-9)
    metrics = {
        f"{names.TRAIN}{term}": value / weight for term, value in sorted(totals.terms.items())
    }
    steps_per_sec, tokens_per_sec = context.timer.read(state.progress)
    metrics |= {
        names.DATA_WAIT_SECONDS: context.timer.wait_seconds,
        names.SKIPPED_RECORDS: float(state.data.skipped_records),
        names.PADDING_FRACTION: 1 - totals.tokens / max(totals.token_slots, 1),
        names.LOSS: totals.loss / weight if totals.steps else float("nan"),
        names.GRAD_NORM: totals.grad_norm / totals.steps if totals.steps else float("nan"),
        names.LEARNING_RATE: float(state.optimizer.learning_rate),
        names.NONFINITE_STEPS: float(state.progress.nonfinite_steps),
        names.STEPS_PER_SEC: steps_per_sec,
        names.TOKENS_PER_SEC: tokens_per_sec,
    }
    for callback in callbacks:
        metrics |= callback.measure(state, result)
    context.log(state, metrics)
