"""A batch as large as the memory allows: halved when memory runs short, doubled when there is plenty."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from mlxlab.backend import memory_budget
from mlxlab.distributed.process_group import ProcessGroup, SingleProcess
from mlxlab.errors import ConfigError
from mlxlab.training.optim.ema import EMAOptimizer
from mlxlab.training.optim.schedules import LRSchedule
from mlxlab.training.state import Run
from mlxlab.training.steps.optimized import OptimizedStep


def peak_since_last() -> float:
    """Bytes: the greatest memory that MLX held since this was asked before."""
    peak = mx.get_peak_memory()
    mx.reset_peak_memory()
    return float(peak)


class AdaptiveBatchSize:
    """Every `interval` updates memory over `critical` quarters the batch, over `high` halves, under `low` doubles it.

    Sizes are powers of two (a compiled step knows few shapes). The learning rate is by examples seen, in units of the
    configured batch, so it does not jump where the size does. Sizes and when they changed are in the run: a resumed run
    goes on with the present one. Memory that runs out all the same is survived by the optimized step only.

    Args:
        min: smallest batch, rounded up to a power of two.
        max: largest batch, rounded down to one.
        low: share of the budget below which the batch is doubled.
        high: share of the budget above which it is halved.
        critical: share of the budget above which it is quartered.
        interval: updates between two looks at the memory.
        cooldown: updates after a change in which the batch is not made larger.
        budget: GB that are the whole budget; None takes what the device says it can work with, or the memory limit.
        probe: bytes that were needed since it was asked before.
    """

    def __init__(
        self,
        min: int = 4,
        max: int = 256,
        low: float = 0.5,
        high: float = 0.85,
        critical: float = 0.95,
        interval: int = 100,
        cooldown: int = 200,
        budget: float | None = None,
        *,
        probe: Callable[[], float] = peak_since_last,
    ) -> None:
        if not 1 <= min <= max or interval < 1 or cooldown < 0 or (budget is not None and budget <= 0):
            raise ConfigError(
                "trainer.dynamic_batch: expected 1 <= min <= max, interval >= 1, cooldown >= 0, budget > 0"
            )
        self.min, self.max = 1 << (min - 1).bit_length(), _power(max)
        if self.min > self.max:
            raise ConfigError(f"trainer.dynamic_batch: no power of two lies between min={min} and max={max}")
        if not 0 <= low < high <= critical:
            raise ConfigError(f"trainer.dynamic_batch: expected low < high <= critical, got {low}, {high}, {critical}")
        self.low, self.high, self.critical = low, high, critical
        self.interval, self.cooldown = interval, cooldown
        self.group: ProcessGroup = SingleProcess()
        self.budget, self.probe = budget * 1e9 if budget is not None else None, probe

    def attach(self, run: Run, step: Any, group: ProcessGroup) -> "AdaptiveBatchSize":
        """Before training starts; from then on it works as a callback, the first of them."""
        run.train.resize(run.train.batch_size)  # refused here, before the first step, if the size is fixed
        self.group = group
        if isinstance(step, OptimizedStep):
            step.parts.careful = True
        return self

    def on_start(self, run: Run) -> None:
        if not run.sizes:
            run.sizes.append((run.step, self._within(_power(run.train.batch_size))))
        _resize(run)
        self._set_clock(run)
        self.probe()

    def on_step(self, run: Run) -> None:
        self._set_clock(run)
        if run.step % self.interval or run.stop:
            return
        share = self._share()
        since, size = run.sizes[-1]
        new = self.next_size(size, share, run.step - since)
        run.log({"data/batch_size": float(new), "memory/share": share})
        if new != size:
            run.sizes.append((run.step, new))
            _resize(run)

    def _share(self) -> float:
        """Of the budget that is used, the greatest of all processes."""
        share = self.probe() / (self.budget or memory_budget())
        return self.group.highest([int(1e6 * share)])[0] / 1e6

    def _set_clock(self, run: Run) -> None:
        clocked = run.optimizer.optimizer if isinstance(run.optimizer, EMAOptimizer) else run.optimizer
        if isinstance(clocked, SampleScheduledOptimizer):
            clocked.set(run.examples / run.sizes[0][1])

    def on_end(self, run: Run) -> None: ...

    def next_size(self, size: int, share: float, age: int) -> int:
        """The size after one of `size` that is `age` updates old and needed `share` of the budget."""
        if share >= self.critical:
            new = size // 4
        elif share >= self.high:
            new = size // 2
        elif share <= self.low and age >= self.cooldown:
            new = size * 2
        else:
            new = size
        return self._within(new)

    def _within(self, size: int) -> int:
        return max(self.min, min(self.max, size))


KEYS: dict[str, type] = {
    "min": int,
    "max": int,
    "low": float,
    "high": float,
    "critical": float,
    "interval": int,
    "cooldown": int,
    "budget": float,
}


def parse_adaptive_batch(given: dict[str, float]) -> AdaptiveBatchSize:
    """That of `trainer.dynamic_batch={min: 8, max: 64}`.

    Raises:
        ConfigError: a key that there is not, or a value that it cannot have.
    """
    for key, value in given.items():
        if key not in KEYS:
            raise ConfigError(f"trainer.dynamic_batch.{key}: unknown; one of {', '.join(KEYS)}")
        if KEYS[key] is int and value != int(value):
            raise ConfigError(f"trainer.dynamic_batch.{key}={value}: expected a whole number")
    return AdaptiveBatchSize(**{key: KEYS[key](value) for key, value in given.items()})


def _resize(run: Run) -> None:
    run.train.resize(run.sizes[-1][1])


def _power(size: int) -> int:
    """The greatest power of two up to `size`."""
    return 1 << (size.bit_length() - 1)


class SampleScheduledOptimizer(optim.Optimizer):
    """An optimizer whose rate is by a clock that is set, and not by its own count of updates."""

    def __init__(self, new: Callable[..., optim.Optimizer], *, rate: LRSchedule) -> None:
        super().__init__()
        self._clock = {"updates": mx.array(0.0)}
        self.optimizer = new(rate=lambda _: rate(self._clock["updates"]))

    def set(self, updates: float) -> None:
        """The place on the schedule of the next update."""
        self._clock["updates"] = mx.array(updates)

    def init(self, parameters: dict) -> None:
        self.optimizer.init(parameters)

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        return self.optimizer.apply_gradients(gradients, parameters)

    @property
    def state(self) -> dict:
        return {"optimizer": self.optimizer.state, "clock": self._clock}

    @state.setter
    def state(self, state: dict) -> None:
        raise AttributeError("fill the leaves of the present state instead")
