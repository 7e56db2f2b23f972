"""The protocol of callbacks, and what the loop passes to them, such as a trace of the run; docs/explanation/architecture.md has their order.

A callback sees what earlier ones in the config logged at the same step. The checkpointer, which the loop holds itself,
comes last: it saves what all of them did.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from mlxlab.checkpoint.state import Progress, RunMetadata, empty_metadata
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.batch import Batch
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.losses.loss import Loss
from mlxlab.training.state import StepResult, TrainState

T = TypeVar("T")


class Span(NamedTuple):
    """A part of a run; `start` is of `time.perf_counter`, in seconds."""

    name: str
    start: float
    seconds: float


class Trace:
    """The parts of a run in the order of their ends.

    Attributes:
        spans: None keeps nothing, until a callback wants them.
        wait_seconds: all seconds of waiting for data.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.spans: list[Span] | None = None
        self.wait_seconds = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside is a part of this name."""
        start = self._clock()
        try:
            yield
        finally:
            self._end(name, start)

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items; the wait for each of them is a part "data"."""
        start = self._clock()
        for item in items:
            self.wait_seconds += self._end("data", start)
            yield item
            start = self._clock()

    def _end(self, name: str, start: float) -> float:
        """Keeps a part that ends now, and returns its seconds."""
        seconds = self._clock() - start
        if self.spans is not None:
            self.spans.append(Span(name, start, seconds))
        return seconds


@dataclass
class Control:
    """Requests to the loop. It acts on them after the current step; they are never saved."""

    stop_reason: str = ""  # ends the run; "done" when a limit of the trainer was reached
    stop_signal: int = 0  # number of the signal that asks to stop
    save_requested: bool = False  # asks for a checkpoint of the current step
    rebuild: bool = (
        False  # model, optimizer or settings were replaced; see `TrainingLoop._build_step`
    )
    evaluation_requested: bool = False  # asks for an evaluation before the next callback


class ThroughputTimer:
    """Steps and tokens per second since the last reading, without the pauses."""

    def __init__(self) -> None:
        self.restart(Progress())

    def restart(self, progress: Progress) -> None:
        self._since = time.monotonic()
        self._step = progress.step
        self._tokens = progress.tokens

    def read(self, progress: Progress) -> tuple[float, float]:
        """(steps/s, tokens/s) since the last reading or restart."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        steps = progress.step - self._step
        tokens = progress.tokens - self._tokens
        self.restart(progress)
        return steps / seconds, tokens / seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - start


@dataclass(frozen=True)
class FitContext:
    """Passed to every callback: what the callbacks of a run share, and constants of the run."""

    monitor: str  # the metric that decides which checkpoint is best
    tracker: Tracker = field(default_factory=NoTracker)
    control: Control = field(default_factory=Control)
    group: ProcessGroup = field(default_factory=ProcessGroup)
    metadata: RunMetadata = field(default_factory=empty_metadata)
    timer: ThroughputTimer = field(default_factory=ThroughputTimer)
    trace: Trace = field(default_factory=Trace)
    loss: Loss | None = None  # what is minimised
    valid: Iterable[Batch] = ()  # the validation batches, the same in every pass
    training_rows: Iterable[
        Batch
    ] = ()  # every training row once, where something is fitted on them

    def should_stop(self) -> bool:
        """Whether a signal asked any process to stop; all processes call it together."""
        return self.group.all_reduce_max([self.control.stop_signal]) != [0]

    def log(self, state: TrainState, metrics: dict[str, float], step: int | None = None) -> None:
        """Logs metrics of the current step, or of an earlier one: to the tracker, and to the history for callbacks."""
        if step is None:
            step = state.progress.step
        self.tracker.log_metrics(step, metrics)
        state.history.add_metrics(step, metrics)


class Callback(Protocol):
    """Acts at the start, after every step and at the end of a fit.

    A subclass overrides the methods it needs. It keeps no state that a resumed run would miss: decisions are derived
    from `state`. It asks the loop to stop or to save through `context.control`, and logs through `context.log`. An
    exception ends the run.
    """

    runs_on_all_ranks: bool = (
        False  # True if it changes training, so that all must do the same; else rank 0 only
    )

    def check(self, state: TrainState, checkpoint: Checkpoint | None) -> None:
        """Raises ConfigError for a run that it cannot serve, before anything is recorded.

        `state` is a new one, of the model of the checkpoint.
        """
        return

    def preview(self, state: TrainState, checkpoint: Checkpoint | None) -> str:
        """What it would change in the run, for `--dry-run`; "" for nothing. Arguments and errors as in `check`."""
        return ""

    def on_start(self, context: FitContext, state: TrainState) -> None:
        """Before the first step, or before the first one after a resume; the state is already restored."""
        return

    def measure(self, state: TrainState, result: StepResult) -> dict[str, float]:
        """Metrics that the trainer logs with those of the step, when it logs.

        They are of the batch, so that a resumed run could not measure them again: it does call `on_step` again if
        another process was lost in the middle of it.
        """
        return {}

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        """After every step and its evaluation."""
        return

    def on_end(self, context: FitContext, state: TrainState) -> None:
        """After the last step, whatever stopped the run; not after an exception."""
        return
