"""LR range test (Smith 2017): the learning rate rises with every step; the loss shows where it becomes too high."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import BatchIterator, Task
from mlxlab.errors import DivergenceError
from mlxlab.schema.metric_names import VALID_LOSS
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.optim.schedules import LRSchedule
from mlxlab.training.state import StepResult, TrainState
from mlxlab.training.trainer import Trainer

SMOOTHING = 0.9  # decay of the smoothed loss: a mean over about ten steps
DIVERGENCE_FACTOR = 4.0  # times the minimum of the smoothed loss: the test ends
MAX_NONFINITE_STEPS = 5


def exponential_lr(start: float, end: float, steps: int) -> LRSchedule:
    """start * (end / start) ** (step / (steps - 1))."""
    growth = math.log(end / start) / max(steps - 1, 1)
    return lambda step: start * mx.exp(growth * mx.array(step).astype(mx.float32))


@dataclass
class LRRangeTest(Callback):
    """A callback that records learning rates and losses, and stops when the loss diverges."""

    steps: int
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    runs_on_all_ranks = True

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self.rates.append(float(state.optimizer.learning_rate))
        loss = math.nan
        if result.weight:
            loss = result.loss / result.weight
        self.losses.append(loss)
        smooth = smoothed(self.losses)
        if state.progress.step >= self.steps or not smooth[-1] <= DIVERGENCE_FACTOR * np.nanmin(
            smooth
        ):
            context.control.stop_reason = context.control.stop_reason or "range test"


def find_learning_rate(
    trainer: Trainer,
    model: nn.Module,
    data: BatchIterator,
    task: Task,
    *,
    start: float,
    end: float,
    steps: int,
    seed: int,
) -> LRRangeTest:
    """Trains with a learning rate that rises from `start` to `end`; evaluates, saves and logs nothing."""
    rate = exponential_lr(start, end, steps)
    trainer = replace(
        trainer,
        schedule=lambda *, peak, steps: rate,
        epochs=None,
        max_tokens=None,
        max_steps=steps + 1,
        eval_every=steps + 2,
        log_every=steps + 2,
        max_rollbacks=0,
        max_nonfinite_steps=MAX_NONFINITE_STEPS,
    )
    context = FitContext(VALID_LOSS)
    test = LRRangeTest(steps)
    loop = TrainingLoop(
        trainer, context, trainer.init_state(model, data, seed), [], task, [test], seed=seed
    )
    with suppress(DivergenceError):  # expected at the upper end of a wide range
        loop.run()
    return test


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Exponential moving average with bias correction."""
    means = []
    mean = 0.0
    for count, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**count))
    return np.array(means)


def suggest_learning_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The learning rate of the minimum slope of the smoothed loss over log(learning rate); None if it never falls."""
    smooth = smoothed(losses)
    finite = np.isfinite(smooth)
    if finite.sum() < 10:
        return None
    x = np.log(np.array(rates)[finite])
    y = smooth[finite]
    slope = np.gradient(y, x)[: max(int(y.argmin()), 1)]  # the slope after the minimum is noise
    index = int(slope.argmin())
    if slope[index] < 0:
        return float(np.exp(x[index]))
    return None


def plot_range_test(test: LRRangeTest, suggested: float | None, path: Path) -> None:
    """Writes a plot of the loss over the learning rate as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6))
    axis = figure.subplots()
    axis.plot(test.rates, test.losses, linewidth=0.6, color="silver", label="loss")
    axis.plot(test.rates, smoothed(test.losses), label="smoothed")
    if suggested is not None:
        axis.axvline(suggested, color="gray", linestyle=":", label=f"suggested: {suggested:.2g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
