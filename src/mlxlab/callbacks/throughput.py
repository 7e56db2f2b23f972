"""Compares the training throughput of a language model with the peak of the machine."""

import logging
import time
from pathlib import Path

from mlxlab.backend.peak_flops import known_peak, measure_peak
from mlxlab.constraints import NonNegative
from mlxlab.metric_names import TOKENS_PER_SEC
from mlxlab.models.model import Classifier, Model, training_flops
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

MODEL_FLOPS = "throughput/model_flops_per_sec"
MFU = "throughput/mfu"


class ThroughputMonitor(Callback):
    """Logs `throughput/model_flops_per_sec` of a language model and its fraction of the peak, `throughput/mfu`.

    The peak is that of matrix products, measured for two seconds at a log point while the timer of the run is paused,
    and cached: once for each machine, device and setting, and never in a run that ends before.

    Args:
        measure_peak_after: seconds of training before the peak is measured; null never measures, and the fraction is
            logged only if the peak is known.
    """

    runs_on_all_ranks = False

    def __init__(self, measure_peak_after: NonNegative | None, *, cache: Path) -> None:
        self.measure_peak_after, self.cache = measure_peak_after, cache
        self.peak: float | None = None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self.start = time.monotonic()
        if _language_model(state) is not None:
            self.peak = known_peak(self.cache, _dtype(context))

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        model, logged = _language_model(state), state.history.at(state.progress.step)
        if model is None or not result.trained or TOKENS_PER_SEC not in logged or MODEL_FLOPS in logged:
            return
        rate = logged[TOKENS_PER_SEC] * training_flops(model, result.batch.tokens.shape[1])
        after = self.measure_peak_after
        if self.peak is None and after is not None and time.monotonic() - self.start >= after:
            with context.timer.paused():
                self.peak = measure_peak(self.cache, _dtype(context))
            logger.info(f"peak of this machine, measured once: {self.peak / 1e9:.1f} GFLOP/s")
        context.log(state, {MODEL_FLOPS: rate} | ({MFU: rate / self.peak} if self.peak else {}))


def _language_model(state: TrainState) -> Model | None:
    model = state.model
    return model if isinstance(model, Model) and not isinstance(model.head, Classifier) else None


def _dtype(context: FitContext) -> str:
    """The dtype in which the step computes."""
    step = context.metadata["config"].get("trainer", {}).get("step", {})
    return step.get("dtype") or "float32"
