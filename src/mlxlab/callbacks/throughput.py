"""Compares the training throughput of a language model with the peak of the machine."""

import logging
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

import mlx.core as mx

from mlxlab import backend
from mlxlab.constraints import NonNegative, Positive
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.metric_names import TOKENS_PER_SEC
from mlxlab.models.model import CausalHead, MaskedHead, Model, training_flops
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

MODEL_FLOPS = "throughput/model_flops_per_sec"
MFU = "throughput/mfu"
PEAKS = "peak.json"  # FLOP/s by machine and setting
MIN_SECONDS = 0.01  # a shorter product is mostly overhead: the width is doubled
MAX_WIDTH = 8192


class ThroughputMonitor(Callback):
    """Logs `throughput/model_flops_per_sec` of a language model and its fraction of the peak, `throughput/mfu`.

    The peak is that of matrix products, measured for two seconds at a log point while the timer of the run is paused,
    and cached: once for each machine, device and setting, and never in a run that ends before.

    Args:
        measure_peak_after: seconds of training before the peak is measured; null never measures, and the fraction is
            logged only if the peak is known.
    """

    def __init__(self, measure_peak_after: NonNegative | None, *, cache: Path) -> None:
        self.measure_peak_after, self.cache = measure_peak_after, cache
        self.peak: float | None = None

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self.start = time.monotonic()
        if _language_model(state) is not None:
            self.peak = read_peaks(self.cache).get(peak_key(_dtype(context)))

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        model, logged = _language_model(state), state.history.at(state.progress.step)
        if (
            model is None
            or not result.trained
            or TOKENS_PER_SEC not in logged
            or MODEL_FLOPS in logged
        ):
            return
        rate = logged[TOKENS_PER_SEC] * training_flops(model, result.batch.tokens.shape[1])
        after = self.measure_peak_after
        if self.peak is None and after is not None and time.monotonic() - self.start >= after:
            with context.timer.paused():
                self.peak = measure_peak(self.cache, _dtype(context))
            logger.info(f"peak of this machine, measured once: {self.peak / 1e9:.1f} GFLOP/s")
        context.log(state, {MODEL_FLOPS: rate} | ({MFU: rate / self.peak} if self.peak else {}))


def _language_model(state: TrainState) -> Model | None:
    model = state.whole_model
    if isinstance(model, Model) and isinstance(model.head, CausalHead | MaskedHead):
        return model
    return None


def _dtype(context: FitContext) -> str:
    """The dtype of matrix products in the step: on a CPU MLX multiplies low precision in float32."""
    step = context.metadata["config"].get("trainer", {}).get("step", {})
    return "float32" if mx.default_device() == mx.Device(mx.cpu) else step.get("dtype") or "float32"


def measure_peak(cache: Path, dtype: str, seconds: float = 2.0) -> float:
    """The best FLOP/s of square matrix products within `seconds`; stored in `cache`."""
    width, elapsed, best, end = 256, 0.0, 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < end:
        if elapsed < MIN_SECONDS and width < MAX_WIDTH:
            width *= 2
            x = mx.random.normal((width, width), key=mx.random.key(0)).astype(getattr(mx, dtype))
            mx.eval(x, x @ x)
        start = time.perf_counter()
        mx.eval(x @ x)
        elapsed = time.perf_counter() - start
        best = max(best, 2 * width**3 / elapsed)
    with suppress(OSError):  # without a cache it is measured again in the next run
        cache.mkdir(parents=True, exist_ok=True)
        write_json(cache / PEAKS, read_peaks(cache) | {peak_key(dtype): best})
    return best


def peak_key(dtype: str) -> str:
    """Machine, device, BLAS, number of threads and dtype: all that the peak depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OPENBLAS_NUM_THREADS", cores)
    name = str(mx.device_info().get("device_name", ""))
    return ", ".join(
        [platform.node(), name, *backend.describe().values(), f"{threads} threads", dtype]
    )


def read_peaks(cache: Path) -> dict[str, float]:
    """The peaks measured so far; none if their file is missing or damaged."""
    try:
        return read_json(cache / PEAKS, dict[str, Positive])
    except (InputNotFoundError, DataError):
        return {}
