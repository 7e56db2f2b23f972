"""Compares the training throughput of a language model with the peak of the machine."""

import logging
import time

import mlx.core as mx

from mlxlab.models.model import CausalHead, MaskedHead, Model, training_flops
from mlxlab.schema.constraints import NonNegative
from mlxlab.schema.metric_names import TOKENS_PER_SEC
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

MODEL_FLOPS = "throughput/model_flops_per_sec"
MFU = "throughput/mfu"
MIN_SECONDS = 0.01  # a shorter product is mostly overhead: the width is doubled
MAX_WIDTH = 8192


class ThroughputMonitor(Callback):
    """Logs `throughput/model_flops_per_sec` of a language model and its fraction of the peak, `throughput/mfu`.

    The peak is that of matrix products, measured once for two seconds at a log point while the timer of the run is
    paused.

    Args:
        measure_peak_after: seconds of training before the peak is measured; null never measures it.
    """

    def __init__(self, measure_peak_after: NonNegative | None) -> None:
        self.measure_peak_after = measure_peak_after
        self.peak: float | None = None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self.start = time.monotonic()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        model = _language_model(state)
        logged = state.history.at(state.progress.step)
        is_due = TOKENS_PER_SEC in logged and MODEL_FLOPS not in logged
        if model is None or not result.trained or not is_due:
            return
        rate = logged[TOKENS_PER_SEC] * training_flops(model, result.batch.tokens.shape[1])
        metrics = {MODEL_FLOPS: rate}
        after = self.measure_peak_after
        if self.peak is None and after is not None and time.monotonic() - self.start >= after:
            dtype = "float32"
            # On a CPU MLX multiplies low precision in float32.
            if mx.default_device() != mx.Device(mx.cpu):
                step = context.metadata["config"].get("trainer", {}).get("step", {})
                dtype = step.get("dtype") or dtype
            with context.timer.paused():
                self.peak = measure_peak(dtype)
            logger.info(f"peak of this machine, measured once: {self.peak / 1e9:.1f} GFLOP/s")
        if self.peak is not None:
            metrics[MFU] = rate / self.peak
        context.log(state, metrics)


def _language_model(state: TrainState) -> Model | None:
    model = state.whole_model
    if isinstance(model, Model) and isinstance(model.head, CausalHead | MaskedHead):
        return model
    return None


def measure_peak(dtype: str, seconds: float = 2.0) -> float:
    """The best FLOP/s of square matrix products within `seconds`."""
    width = 256
    elapsed = 0.0
    best = 0.0
    end = time.perf_counter() + seconds
    while not best or time.perf_counter() < end:
        if elapsed < MIN_SECONDS and width < MAX_WIDTH:
            width *= 2
            x = mx.random.normal((width, width), key=mx.random.key(0)).astype(getattr(mx, dtype))
            mx.eval(x, x @ x)
        start = time.perf_counter()
        mx.eval(x @ x)
        elapsed = time.perf_counter() - start
        best = max(best, 2 * width**3 / elapsed)
    return best
