"""The learning-rate range test (Smith 2017): the rate rises from update to update, the loss tells which is too high."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlxlab.data.batch import Task
from mlxlab.errors import DivergenceError
from mlxlab.training.optim.schedules import LRSchedule
from mlxlab.training.state import Run
from mlxlab.training.trainer import Trainer

MEMORY = 0.9  # of the smoothed loss, a mean over some ten updates
DIVERGENCE_FACTOR = 4.0  # times the least smoothed loss: no need to go on


def exponential_lr(start: float, end: float, updates: int) -> LRSchedule:
    """start * (end / start) ** (step / (updates - 1))."""
    growth = math.log(end / start) / max(updates - 1, 1)
    return lambda step: start * mx.exp(growth * mx.array(step).astype(mx.float32))


@dataclass
class LRRangeTest:
    """Rates and losses of a range test, as a callback that fills them."""

    rate: LRSchedule
    updates: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def on_start(self, run: Run) -> None: ...

    def on_step(self, run: Run) -> None:
        self.rates.append(float(self.rate(mx.array(run.step - 1))))
        self.losses.append(float(run.rows["loss"].sum() / run.rows["weight"].sum()))
        smooth = smoothed(self.losses)
        if run.step >= self.updates or not smooth[-1] <= DIVERGENCE_FACTOR * np.nanmin(smooth):
            run.stop = run.stop or "range"

    def on_end(self, run: Run) -> None: ...


def find_learning_rate(
    run: Run, trainer: Trainer, task: Task, start: float, end: float, updates: int, seed: int
) -> LRRangeTest:
    """Trains with a rising rate; evaluates, saves and logs nothing."""
    found = LRRangeTest(exponential_lr(start, end, updates), updates)
    trainer.schedule = lambda *, peak, steps: found.rate
    trainer.epochs, trainer.max_tokens, trainer.max_steps = None, None, updates + 1
    trainer.eval_every, trainer.log_every = updates + 2, updates + 2
    trainer.max_rollbacks = 0
    with suppress(DivergenceError):  # the end of a range that is wide enough
        trainer.fit(run, [], task, [found], seed=seed)
    return found


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """A running mean without the bias of its beginning."""
    means, mean = [], 0.0
    for count, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        means.append(mean / (1 - MEMORY**count))
    return np.array(means)


def suggest_learning_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls most steeply, per factor of the rate; None if it never falls."""
    smooth = smoothed(losses)
    finite = np.isfinite(smooth)
    if finite.sum() < 10:
        return None
    x, y = np.log(np.array(rates)[finite]), smooth[finite]
    slope = np.gradient(y, x)[: max(int(y.argmin()), 1)]  # what comes after the least loss is noise
    steepest = int(slope.argmin())
    return float(np.exp(x[steepest])) if slope[steepest] < 0 else None


def draw(found: LRRangeTest, best: float | None, path: Path) -> None:
    """Loss over rate, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6))
    axis = figure.subplots()
    axis.plot(found.rates, found.losses, linewidth=0.6, color="silver", label="loss")
    axis.plot(found.rates, smoothed(found.losses), label="smoothed")
    if best is not None:
        axis.axvline(best, color="gray", linestyle=":", label=f"steepest: {best:.2g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
