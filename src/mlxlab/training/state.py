"""The run: everything that changes during a fit. A checkpoint is the weights, the optimizer and `run.state_dict()`."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.batch import Batch, BatchIterator
from mlxlab.errors import CheckpointUnavailableError, DivergenceError
from mlxlab.metric_names import lower_is_better
from mlxlab.tracking.tracker import Tracker
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.optim.ema import swap_for_load
from mlxlab.training.optim.optimizers import assign_leaves
from mlxlab.training.running_totals import RunningTotals

CURVE_POINTS = 1000  # a longer learning curve is thinned to half


@dataclass(frozen=True)
class MonitoredMetric:
    """The metric that decides which checkpoint is best. Losses are minimised, everything else is maximised."""

    name: str

    @property
    def minimised(self) -> bool:
        return lower_is_better(self.name)

    def better(self, new: float, old: float | None, by: float = 0.0) -> bool:
        """Is `new` better than `old` by more than `by`? NaN never is."""
        if math.isnan(new):
            return False
        return old is None or (new < old - by if self.minimised else new > old + by)


@dataclass
class Run:
    """Everything that changes during a fit.

    `stop` is the reason to end, empty while there is none. `history` holds (step, value of the objective) of every
    evaluation, `curve` (step, metrics) for plots. `facts` is what a checkpoint must carry to be understood later.
    """

    model: nn.Module
    train: BatchIterator
    objective: MonitoredMetric
    tracker: Tracker
    max_skips: int
    optimizer: optim.Optimizer | None = None
    total_steps: int | None = None
    labels: tuple[str, ...] = ()  # names of the classes
    facts: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    tokens: int = 0
    examples: int = 0
    examples_before: int = 0  # the present update
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (step, size of the batch from then on) if it changes
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    curve: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    window: RunningTotals = field(default_factory=RunningTotals)
    evaluation: Evaluation | None = None  # of this very step, else None
    metrics: dict[str, float] = field(default_factory=dict)
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_confusion: list[list[int]] = field(default_factory=list)  # of a classification: rows are the true classes
    beside: dict[str, dict[str, float]] = field(default_factory=dict)  # what others make of the validation data
    batch: Batch | None = None  # of the present step
    rows: dict[str, mx.array] = field(default_factory=dict)  # by name (B,): sums over the targets of each of its rows
    stop: str = ""
    signal: int = 0  # the number of the signal that asks to stop; the loop obeys it after the present step
    rollbacks: int = 0
    place: dict[str, Any] = field(default_factory=dict)  # in the data, of the next step
    rescue: Callable[[], str] = lambda: ""  # saves what was before the present step; says so
    reload: Callable[[], Checkpoint] | None = None  # the newest good checkpoint, where checkpoints are kept
    before_save: Callable[[], None] = lambda: None  # makes durable what the state depends on
    save: bool = False  # somebody asks for a checkpoint of the present step
    started: float = field(default_factory=time.monotonic)
    recompiles: float | None = None  # shapes that the step was compiled for, beyond the first
    clock: tuple[float, int, int] = (0.0, 0, 0)  # time, step and tokens at the last log line

    def advance(self, batch: Batch, metrics: dict[str, Any]) -> None:
        """Counts one update; raises DivergenceError after `max_skips` skipped ones in a row.

        At once, not at the next log line: where a run rolls back must not depend on when it logs or saves.
        """
        self.step += 1
        self.place = self.train.state_dict()
        self.examples_before, tokens = self.examples, int(np.count_nonzero(batch.mask))
        self.examples += int(np.count_nonzero(batch.ids >= 0))  # -1 are rows that only fill up
        self.tokens += tokens
        self.window.tokens, self.window.places = self.window.tokens + tokens, self.window.places + batch.mask.size
        self.evaluation = None
        self.batch, self.rows = batch, metrics.get("rows", {})
        self.recompiles = metrics.get("recompiles")
        loss, weight, norm, skipped = (float(metrics[k]) for k in ("loss", "weight", "norm", "skipped"))
        if not skipped:
            w = self.window
            w.loss, w.weight, w.norm, w.steps = w.loss + loss, w.weight + weight, w.norm + norm, w.steps + 1
            for name in self.rows.keys() - {"loss", "weight"}:
                w.parts[name] = w.parts.get(name, 0.0) + float(self.rows[name].sum())
        self.skipped += int(skipped)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= self.max_skips:
            raise DivergenceError(
                f"loss or gradients were not finite in {self.skipped_in_a_row} updates in a row, up to step {self.step}"
                "; none of them reached the weights: lower trainer.learning_rate, or raise trainer.max_skips"
            )

    def log(self, metrics: dict[str, float]) -> None:
        """Hands metrics of the present step to the tracker and to the learning curve."""
        self.metrics.update(metrics)
        self.tracker.log_metrics(self.step, metrics)
        if self.curve and self.curve[-1][0] == self.step:
            self.curve[-1][1].update(metrics)
        else:
            self.curve.append((self.step, dict(metrics)))
        if len(self.curve) > CURVE_POINTS:
            self.curve = [
                point for i, point in enumerate(self.curve) if i % 2 or any(k[:5] == "valid" for k in point[1])
            ]

    def log_training(self, rate: float) -> None:
        """Logs the means since the last log line."""
        w, self.window = self.window, RunningTotals()
        now, (since, step, tokens) = time.monotonic(), self.clock
        self.clock = (now, self.step, self.tokens)
        seconds = max(now - (since or self.started), 1e-9)
        parts = {f"train/{name}": value / max(w.weight, 1e-9) for name, value in sorted(w.parts.items())}
        self.log(
            parts
            | ({} if self.recompiles is None else {"speed/recompiles": float(self.recompiles)})
            | {
                "data/wait_seconds": self.train.wait_seconds,
                "data/skipped": float(self.train.skipped_records),
                "data/padding": 1 - w.tokens / max(w.places, 1),
                "train/loss": w.loss / max(w.weight, 1e-9) if w.steps else float("nan"),
                "train/grad_norm": w.norm / w.steps if w.steps else float("nan"),
                "train/learning_rate": rate,
                "train/skipped": float(self.skipped),
                "speed/steps_per_second": (self.step - step) / seconds,
                "speed/tokens_per_second": (self.tokens - tokens) / seconds,
            }
        )

    def record(self, evaluation: Evaluation) -> None:
        """Takes in an evaluation: logs it and remembers the best."""
        self.evaluation = evaluation
        metrics = {f"valid/{name}": value for name, value in evaluation.metrics.items()}
        self.log(metrics)
        value = metrics[self.objective.name]
        self.history.append((self.step, value))
        if self.objective.better(value, self.best):
            self.best, self.best_step, self.best_metrics = value, self.step, metrics
            self.best_confusion = evaluation.confusion.tolist()

    @property
    def position(self) -> float:
        """Where the present update is on the schedule: updates before it, or what as many examples would make."""
        return self.examples_before / self.sizes[0][1] if self.sizes else self.step - 1

    @property
    def evaluated(self) -> bool:
        """Was the present step evaluated, now or before a resume?"""
        return bool(self.history) and self.history[-1][0] == self.step

    @property
    def improved(self) -> bool:
        """Is the present step the best so far?"""
        return self.evaluation is not None and self.best_step == self.step

    def restart_clock(self) -> None:
        self.started, self.clock = time.monotonic(), (0.0, self.step, self.tokens)

    def roll_back(self, most: int) -> bool:
        """Takes weights and optimizer from the last good checkpoint and goes on behind the data that did the harm.

        False if that was done `most` times already, or there is no checkpoint.
        """
        if self.rollbacks >= most or self.reload is None:
            return False
        try:
            checkpoint = self.reload()
        except CheckpointUnavailableError:
            return False
        self.put(checkpoint.weights, checkpoint.optimizer)
        self.window, self.skipped_in_a_row, self.rollbacks = RunningTotals(), 0, self.rollbacks + 1
        print(f"step {self.step}: not finite; weights of step {checkpoint.step}, later data", file=sys.stderr)
        return True

    def put(self, weights: dict[str, mx.array], optimizer: dict[str, mx.array]) -> None:
        """Leaf by leaf, so that what was compiled with the old state sees the new one."""
        weights, optimizer = swap_for_load(weights, optimizer)
        self.model.load_weights(list(weights.items()))
        if self.optimizer is not None:
            assign_leaves(self.optimizer.state, optimizer)

    _SAVED = (
        "step",
        "tokens",
        "examples",
        "examples_before",
        "skipped",
        "skipped_in_a_row",
        "rollbacks",
        "best",
        "best_step",
        "best_metrics",
        "best_confusion",
    )

    def state_dict(self) -> dict[str, Any]:
        """All but the weights and the optimizer, as JSON can hold it."""
        state = {name: getattr(self, name) for name in self._SAVED}
        return state | {
            "history": self.history,
            "curve": self.curve,
            "sizes": self.sizes,
            "window": vars(self.window),
            "data": self.train.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._SAVED:
            setattr(self, name, state[name])
        self.history = [(int(step), value) for step, value in state["history"]]
        self.curve = [(int(step), metrics) for step, metrics in state["curve"]]
        self.sizes = [(int(step), int(size)) for step, size in state["sizes"]]
        self.window = RunningTotals(**state["window"])
        self.train.load_state_dict(state["data"])

    def restore(self, weights: dict[str, mx.array], optimizer: dict[str, mx.array], state: dict[str, Any]) -> None:
        """Goes back to a checkpoint."""
        self.put(weights, optimizer)
        self.load_state_dict(state)
