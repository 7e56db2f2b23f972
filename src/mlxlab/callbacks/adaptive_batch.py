"""Adaptive batch size: halved when memory runs short, doubled when there is plenty."""

from collections.abc import Callable

import mlx.core as mx

from mlxlab.backend import memory_budget
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Count, Fraction, Positive, Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

KEY = "callbacks.adaptive_batch"


def peak_since_last() -> float:
    """Bytes: peak memory of MLX since the previous call."""
    peak = mx.get_peak_memory()
    mx.reset_peak_memory()
    return float(peak)


class AdaptiveBatchSize(Callback):
    """Quarters the batch if peak memory exceeds `critical`, halves it above `high`, doubles it below `low`.

    Sizes are powers of two, so that a compiled step meets few shapes. The learning rate then follows the samples seen,
    in units of the first batch, and does not jump where the size does. Combine it with
    `trainer.step.retry_on_oom=true` to survive a failed allocation too.

    Args:
        min: smallest batch, rounded up to a power of two.
        max: largest batch, rounded down to a power of two; null switches the callback off.
        low: fraction of the memory budget below which the batch is doubled.
        high: fraction above which it is halved.
        critical: fraction above which it is quartered.
        interval: steps between two measurements.
        cooldown: steps after a change during which the batch is not enlarged.
        budget: memory budget in GB; null takes what the device can work with, or the memory limit.
        probe: bytes needed since the previous call.
    """

    runs_on_all_ranks = True

    def __init__(
        self,
        min: Size,
        max: Size | None,
        low: Fraction,
        high: Fraction,
        critical: Fraction,
        interval: Size,
        cooldown: Count,
        budget: Positive | None,
        *,
        probe: Callable[[], float] = peak_since_last,
    ) -> None:
        self.enabled = max is not None
        self.min = 1 << (min - 1).bit_length()
        self.max = _power_of_two(max or min)
        if self.enabled and self.min > self.max:
            raise ConfigError(f"{KEY}: no power of two between min={min} and max={max}")
        if not low < high <= critical:
            raise ConfigError(
                f"{KEY}: expected low < high <= critical, got {low}, {high}, {critical}"
            )
        self.low = low
        self.high = high
        self.critical = critical
        self.interval = interval
        self.cooldown = cooldown
        self.budget = 1e9 * (budget or 0)  # bytes; 0 is that of the machine
        self.probe = probe

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.enabled:
            return
        sizes = state.progress.batch_sizes
        data = state.data
        if not sizes:
            sizes.append((state.progress.step, self._within(_power_of_two(data.batch_size))))
        data.resize(sizes[-1][1])
        self.probe()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        sizes = state.progress.batch_sizes
        if not self.enabled or step % self.interval or context.control.stop_reason:
            return
        used = self.probe() / (self.budget or memory_budget())
        # All ranks must decide alike.
        fraction = context.group.all_reduce_max([int(1e6 * used)])[0] / 1e6
        since, size = sizes[-1]
        new = self.next_size(size, fraction, step - since)
        context.log(state, {"data/batch_size": float(new), "memory/budget_fraction": fraction})
        if new != size:
            sizes.append((step, new))
            state.data.resize(new)

    def next_size(self, size: int, fraction: float, age: int) -> int:
        """The size that follows `size`, which is `age` steps old and needed `fraction` of the budget."""
        if fraction >= self.critical:
            new = size // 4
        elif fraction >= self.high:
            new = size // 2
        elif fraction <= self.low and age >= self.cooldown:
            new = size * 2
        else:
            new = size
        return self._within(new)

    def _within(self, size: int) -> int:
        return max(self.min, min(self.max, size))


def _power_of_two(size: int) -> int:
    """The largest power of two up to `size`."""
    return 1 << (size.bit_length() - 1)
