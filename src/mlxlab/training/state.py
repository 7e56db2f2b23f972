"""Training state: everything a checkpoint restores, and the result of the step just taken."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import NamedTuple, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlxlab.checkpoint.state import HistoryState, ProgressState, RunningState, TrainingState
from mlxlab.data.batch import Batch, BatchIterator
from mlxlab.metric_names import VALID, lower_is_better
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.optim.ema import AVERAGE, TRAINED, EMAOptimizer, swap_weights
from mlxlab.training.optim.optimizers import load_optimizer_state
from mlxlab.training.steps.step import StepOutput, term_names

CURVE_POINTS = 1000  # a longer learning curve is thinned to half
T = TypeVar("T")


class StepResult(NamedTuple):
    """One optimizer step, read from the device. Sums are over the targets of the batch, on all ranks together."""

    batch: Batch
    loss: float
    weight: float
    grad_norm: float  # before clipping
    finite: bool  # False: loss or gradient were not, and nothing was changed
    terms: dict[str, float]  # sums of the terms of the loss, by name
    per_example: dict[str, mx.array]  # (B,) sums over the targets of each row: "loss", "weight" and every term
    retraces: int | None = None  # traces of a compiled step beyond the first; None if it is not compiled
    evaluation: Evaluation | None = None  # made after this step, if one was due

    @property
    def trained(self) -> bool:
        """False for the result of a resumed run that only made up for an evaluation that was due."""
        return len(self.batch.example_ids) > 0


def step_result(batch: Batch, output: StepOutput) -> StepResult:
    """Reads all numbers of a step at once: each read of its own waits for the device."""
    loss, weight, grad_norm, finite, *terms = np.array(output.scalars, np.float64).tolist()
    named = dict(zip(term_names(output.per_example), terms, strict=True))
    return StepResult(batch, loss, weight, grad_norm, finite > 0, named, output.per_example, output.retraces)


def no_step() -> StepResult:
    """The result where a resumed run only makes up for an evaluation."""
    empty = np.zeros((0, 0), np.int32)
    batch = Batch(empty, empty, empty, empty.astype(np.float32), np.zeros(0, np.int64))
    return StepResult(batch, 0.0, 0.0, 0.0, True, {}, {})


def is_better(metric: str, new: float, old: float | None, min_delta: float = 0.0) -> bool:
    """True if `new` is better than `old` by more than `min_delta`; NaN never is."""
    if math.isnan(new):
        return False
    return old is None or (new < old - min_delta if lower_is_better(metric) else new > old + min_delta)


@dataclass
class Progress:
    """Counters. A step counts even if it changed nothing because the loss or gradient was not finite."""

    step: int = 0
    samples: int = 0
    tokens: int = 0  # without padding
    nonfinite_steps: int = 0
    consecutive_nonfinite: int = 0
    rollbacks: int = 0
    batch_sizes: list[tuple[int, int]] = field(default_factory=list)  # (step, size after it), where the size changes

    @property
    def schedule_step(self) -> float:
        """Position of the next step on the LR schedule, in steps; samples / first batch size if the size changes."""
        return self.samples / self.batch_sizes[0][1] if self.batch_sizes else self.step

    def record(self, result: StepResult) -> None:
        self.step += 1
        self.samples += int(np.count_nonzero(result.batch.example_ids >= 0))  # -1 are rows that only fill up
        self.tokens += int(np.count_nonzero(result.batch.segment_ids))
        self.nonfinite_steps += not result.finite
        self.consecutive_nonfinite = 0 if result.finite else self.consecutive_nonfinite + 1


@dataclass
class RunningTotals:
    """Sums since the last log line; non-finite steps count for `tokens` and `token_slots` only."""

    loss: float = 0.0
    weight: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    tokens: int = 0
    token_slots: int = 0  # with padding
    terms: dict[str, float] = field(default_factory=dict)

    def record(self, result: StepResult) -> None:
        self.tokens += int(np.count_nonzero(result.batch.segment_ids))
        self.token_slots += result.batch.segment_ids.size
        if not result.finite:
            return
        self.loss, self.weight = self.loss + result.loss, self.weight + result.weight
        self.grad_norm, self.steps = self.grad_norm + result.grad_norm, self.steps + 1
        for name, value in result.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value


@dataclass
class History:
    """Evaluations and logged metrics.

    Attributes:
        evaluations: (step, value of the monitored metric) of every evaluation.
        curve: (step, metrics) for plots, thinned where it gets long; the last point is that of the last log call.
        best_confusion: counts of the best evaluation of a classification; rows are the true classes.
        reference: metrics of other models on the same validation data, by name.
    """

    evaluations: list[tuple[int, float]] = field(default_factory=list)
    curve: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_confusion: list[list[int]] = field(default_factory=list)
    reference: dict[str, dict[str, float]] = field(default_factory=dict)

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        if self.curve and self.curve[-1][0] == step:
            self.curve[-1][1].update(metrics)
        else:
            self.curve.append((step, dict(metrics)))
        if len(self.curve) > CURVE_POINTS:
            *earlier, last = self.curve
            thinned = [p for i, p in enumerate(earlier) if i % 2 or any(name.startswith(VALID) for name in p[1])]
            self.curve = [*thinned, last]

    def add_evaluation(
        self, step: int, metrics: dict[str, float], confusion: list[list[int]], monitored_metric: str
    ) -> None:
        value = metrics[monitored_metric]
        self.evaluations.append((step, value))
        if is_better(monitored_metric, value, self.best):
            self.best, self.best_step = value, step
            self.best_metrics, self.best_confusion = metrics, confusion

    def at(self, step: int) -> dict[str, float]:
        """Metrics logged at the current step so far."""
        return self.curve[-1][1] if self.curve and self.curve[-1][0] == step else {}

    def latest(self, name: str) -> float | None:
        """The last value of a metric; None if it was never logged."""
        return next((metrics[name] for _, metrics in reversed(self.curve) if name in metrics), None)


@dataclass
class TrainState:
    """The state that a checkpoint restores: weights, optimizer and, as JSON, everything that `state_dict` returns.

    Attributes:
        total_steps: planned length of the run; None if no limit can be expressed in steps. Not saved.
        data_state: position in the data after the last step; `data` itself may be one batch ahead. Not saved.
        before_save: makes durable what a resumed run needs besides the checkpoint.
    """

    model: nn.Module
    optimizer: optim.Optimizer
    data: BatchIterator
    total_steps: int | None = None
    progress: Progress = field(default_factory=Progress)
    history: History = field(default_factory=History)
    running: RunningTotals = field(default_factory=RunningTotals)
    data_state: dict[str, object] = field(default_factory=dict)
    before_save: Callable[[], None] = lambda: None

    def record(self, result: StepResult) -> None:
        """Counts one step, at once: where a run rolls back must not depend on when it logs or saves."""
        self.progress.record(result)
        self.running.record(result)
        self.data_state = self.data.state_dict()

    @contextmanager
    def eval_weights(self) -> Iterator[nn.Module]:
        """The model with the weights that are evaluated and saved: their moving average, if there is one."""
        before = self.model.trainable_parameters()
        if isinstance(self.optimizer, EMAOptimizer):
            self.model.update(self.optimizer.state["average"])
        try:
            yield self.model
        finally:
            self.model.update(before)

    @property
    def fraction_done(self) -> float | None:
        """Fraction of the run that is done, in [0, 1); None if its length is unknown."""
        return self.progress.step / self.total_steps if self.total_steps else None

    def load_weights(self, weights: dict[str, mx.array], optimizer: dict[str, mx.array]) -> None:
        """Replaces leaf by leaf, so that a step compiled with the old arrays sees the new ones."""
        weights, optimizer = swap_weights(weights, optimizer, TRAINED, AVERAGE)
        self.model.load_weights(list(weights.items()))
        load_optimizer_state(self.optimizer, optimizer)

    def state_dict(self) -> TrainingState:
        """Everything but weights and optimizer, as JSON."""
        return {
            "progress": cast(ProgressState, asdict(self.progress)),
            "history": cast(HistoryState, asdict(self.history)),
            "running": cast(RunningState, asdict(self.running)),
            "data": self.data.state_dict(),
        }

    def load_state_dict(self, state: TrainingState) -> None:
        vars(self.progress).update(state["progress"])
        vars(self.history).update(state["history"])
        vars(self.running).update(state["running"])
        self.progress.batch_sizes = _pairs(self.progress.batch_sizes)
        self.history.evaluations, self.history.curve = _pairs(self.history.evaluations), _pairs(self.history.curve)
        self.data.load_state_dict(state["data"])


def _pairs(items: Iterable[tuple[int, T]]) -> list[tuple[int, T]]:
    """JSON has lists in place of tuples."""
    return [(step, value) for step, value in items]
