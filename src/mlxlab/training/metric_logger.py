"""Logs means over the steps since the last log line; docs/metrics.md documents the keys."""

from mlxlab import metric_names as names
from mlxlab.training.context import FitContext
from mlxlab.training.state import RunningTotals, StepResult, TrainState


class MetricLogger:
    """Logs the running totals of a state and resets them."""

    def __init__(self, context: FitContext, state: TrainState) -> None:
        self.context, self.state = context, state
        self._step, self._tokens = state.progress.step, state.progress.tokens
        context.timer.restart()

    def log_totals(self, result: StepResult) -> None:
        totals, self.state.running = self.state.running, RunningTotals()
        weight = max(totals.weight, 1e-9)
        metrics = {f"{names.TRAIN}{term}": value / weight for term, value in sorted(totals.terms.items())}
        if result.retraces is not None:
            metrics[names.RETRACES] = float(result.retraces)
        metrics |= {
            names.DATA_WAIT_SECONDS: self.state.data.wait_seconds,
            names.SKIPPED_RECORDS: float(self.state.data.skipped_records),
            names.PADDING_FRACTION: 1 - totals.tokens / max(totals.token_slots, 1),
            names.LOSS: totals.loss / weight if totals.steps else float("nan"),
            names.GRAD_NORM: totals.grad_norm / totals.steps if totals.steps else float("nan"),
            names.LEARNING_RATE: float(self.state.optimizer.learning_rate),
            names.NONFINITE_STEPS: float(self.state.progress.nonfinite_steps),
        }
        self.context.log(self.state, metrics | self._throughput())

    def _throughput(self) -> dict[str, float]:
        seconds, progress = self.context.timer.read(), self.state.progress
        steps, tokens = progress.step - self._step, progress.tokens - self._tokens
        self._step, self._tokens = progress.step, progress.tokens
        return {names.STEPS_PER_SEC: steps / seconds, names.TOKENS_PER_SEC: tokens / seconds}
