"""How much of this machine the training of a language model uses."""

import sys
import time
from pathlib import Path

from mlxlab.backend.peak_flops import known_peak, measure_peak
from mlxlab.constraints import NonNegative
from mlxlab.models.flops import training_flops
from mlxlab.models.heads import Classifier
from mlxlab.models.model import Model
from mlxlab.training.state import Run


class ThroughputMonitor:
    """Logs `speed/model_flops_per_second` of a language model, and which share of the machine's peak that is.

    The peak is that of matrix products, measured for two seconds at a log point, outside the clock of the run, and
    kept in .cache: so once for each machine, device and setting, and never in a run that is over before.

    Args:
        peak_after: seconds of training before the peak is measured; null never measures, and the share is only logged
            where the peak is known.
    """

    def __init__(self, peak_after: NonNegative | None, *, cache: Path) -> None:
        self.peak_after, self.cache = peak_after, cache
        self.peak: float | None = None
        self.began = 0.0

    def on_start(self, run: Run) -> None:
        self.began = time.monotonic()
        if self._counts(run):
            self.peak = known_peak(self.cache, _dtype(run))

    def on_step(self, run: Run) -> None:
        if not self._counts(run) or run.batch is None or not run.curve or run.curve[-1][0] != run.step:
            return
        logged = run.curve[-1][1]
        if "speed/tokens_per_second" not in logged or "speed/model_flops_per_second" in logged:
            return
        rate = logged["speed/tokens_per_second"] * training_flops(run.model, run.batch.tokens.shape[1])  # type: ignore[arg-type]
        if self.peak is None and self.peak_after is not None and time.monotonic() - self.began >= self.peak_after:
            self._measure(run)
        run.log(
            {"speed/model_flops_per_second": rate} | ({"speed/share_of_peak": rate / self.peak} if self.peak else {})
        )

    def on_end(self, run: Run) -> None: ...

    def _measure(self, run: Run) -> None:
        start = time.monotonic()
        self.peak = measure_peak(self.cache, _dtype(run))
        print(f"peak of this machine, measured once: {self.peak / 1e9:.1f} GFLOP/s", file=sys.stderr)
        since, step, tokens = run.clock
        run.clock = (since + time.monotonic() - start, step, tokens)

    def _counts(self, run: Run) -> bool:
        return isinstance(run.model, Model) and not isinstance(run.model.head, Classifier)


def _dtype(run: Run) -> str:
    """In which the step computes."""
    step = run.facts.get("config", {}).get("trainer", {}).get("step", {})
    return step.get("dtype") or "float32"
