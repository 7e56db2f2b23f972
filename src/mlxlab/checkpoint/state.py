"""What a checkpoint holds besides the arrays of model and optimizer."""

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from math import isfinite
from operator import itemgetter
from typing import Any, NotRequired, TypedDict

from mlxlab.files.untrusted import parse_json
from mlxlab.schema.constraints import Count, Fraction, Positive, Size
from mlxlab.schema.metric_names import ANALYSIS, VALID, is_better


class Continuation(TypedDict):
    """A command line that continued a run.

    Attributes:
        step: of the checkpoint that it continued from.
        overrides: as typed, `hydra.run.dir` included; empty if `forked`.
        model: keys of the model that it changed -> (before, after).
        forked: it began the run with a checkpoint of another one, or continued that other one.
    """

    step: Count
    overrides: list[str]
    model: dict[str, tuple[object, object]]
    forked: bool


STATE = "state.json"  # the file of a checkpoint that holds it
CURVE_POINTS = 1000  # a longer learning curve is thinned to half


@dataclass
class Resize:
    """A change of the batch size, and what a whole run of such batches would be counted by; None where unknown."""

    step: Count  # after which
    size: Size  # rows of a full batch
    batches_per_epoch: Size | None
    tokens_per_batch: Size | None


@dataclass
class ChangedSettings:
    """Settings that operations of growth changed during the run; None is as configured."""

    learning_rate: Positive | None = None
    warmup_start: Count | None = None  # step after which the learning rate rises again
    warmup_steps: Count = 0
    schedule_start: Count = 0  # step at which the schedule began again
    # All of them in order; the plan of the run follows from them.
    resizes: list[Resize] = field(default_factory=list)
    accumulate: Size | None = None
    eval_every: Size | None = None
    eval_batches: Size | None = None
    curriculum_alpha: Fraction | None = None

    @property
    def batch_size(self) -> int | None:
        """Rows of a full batch; None is as configured."""
        return self.resizes[-1].size if self.resizes else None


@dataclass
class GrowthProgress:
    """Operations of `callbacks.growth` that are done, in order."""

    done: list[str] = field(default_factory=list)  # ids
    hashes: list[str] = field(default_factory=list)  # digest of each with all before it
    step: Count = 0  # the step of the last one


@dataclass
class Progress:
    """Counters. A step counts even if it changed nothing because the loss or gradient was not finite."""

    step: Count = 0
    samples: Count = 0
    tokens: Count = 0  # without padding
    nonfinite_steps: Count = 0
    consecutive_nonfinite: Count = 0
    rollbacks: Count = 0
    # Another process was lost before all callbacks of the last step had run.
    callbacks_pending: bool = False
    # (step, size after it), where the size changes
    batch_sizes: list[tuple[Count, Size]] = field(default_factory=list)
    settings: ChangedSettings = field(default_factory=ChangedSettings)
    growth: GrowthProgress = field(default_factory=GrowthProgress)
    model_step: Count = 0  # after which another model took the place of the one before

    @property
    def schedule_step(self) -> float:
        """Position of the next step on the LR schedule, in steps; samples / first batch size if the size changes."""
        return self.samples / self.batch_sizes[0][1] if self.batch_sizes else self.step


@dataclass
class RunningTotals:
    """Sums since the last log line; non-finite steps count for `tokens` and `token_slots` only."""

    loss: float = 0.0
    weight: float = 0.0
    grad_norm: float = 0.0
    steps: Count = 0
    tokens: Count = 0
    token_slots: Count = 0  # tokens and padding
    terms: dict[str, float] = field(default_factory=dict)


@dataclass
class History:
    """Evaluations and logged metrics, which may be NaN."""

    # (step, monitored metric), one of a step
    evaluations: list[tuple[Count, float]] = field(default_factory=list)
    # (step, metrics), thinned
    curve: list[tuple[Count, dict[str, float]]] = field(default_factory=list)
    best: float | None = None
    best_step: Count = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    reference: dict[str, dict[str, float]] = field(default_factory=dict)  # model -> metrics
    events: list[tuple[Count, str]] = field(default_factory=list)  # (step, what changed)

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Adds metrics of the current step, or of an earlier one."""
        index = bisect_left(self.curve, step, key=itemgetter(0))
        if index < len(self.curve) and self.curve[index][0] == step:
            self.curve[index][1].update(metrics)
        else:
            self.curve.insert(index, (step, dict(metrics)))
        if len(self.curve) > CURVE_POINTS:
            *earlier, last = self.curve
            thinned = [
                point
                for index, point in enumerate(earlier)
                if index % 2 or any(name.startswith((VALID, ANALYSIS)) for name in point[1])
            ]
            self.curve = [*thinned, last]

    def add_evaluation(self, step: int, metrics: dict[str, float], monitored_metric: str) -> None:
        """Adds an evaluation; one made earlier at the same step no longer counts."""
        self.discard_evaluation(step, monitored_metric)
        value = metrics[monitored_metric]
        self.evaluations.append((step, value))
        if is_better(monitored_metric, value, self.best):
            self.best = value
            self.best_step = step
            self.best_metrics = metrics

    def discard_evaluation(self, step: int, monitored_metric: str) -> None:
        """Removes the evaluation of the current step, if there is one; the best is then that of the others."""
        if not self.evaluations or self.evaluations[-1][0] != step:
            return
        self.evaluations.pop()
        if self.best_step != step:
            return
        names = set(self.best_metrics)
        self.best = None
        self.best_step = 0
        for at, value in self.evaluations:
            if is_better(monitored_metric, value, self.best):
                self.best = value
                self.best_step = at
        self.best_metrics = {}
        if self.best is not None:
            logged = dict(self.curve).get(self.best_step, {})
            self.best_metrics = {name: value for name, value in logged.items() if name in names}

    def discard_best(self) -> None:
        """Forgets which evaluation was the best: those so far were of another model."""
        self.evaluations.clear()
        self.best = None
        self.best_step = 0
        self.best_metrics = {}

    def without_best(self, step: int) -> "History":
        """Returns a copy whose best evaluation is that of `step`, if there was one: the weights of the best are lost."""
        value = dict(self.evaluations).get(step)
        metrics = dict(self.curve).get(step, {})
        if value is None or not isfinite(value):
            return replace(self, best=None, best_step=0, best_metrics={})
        metrics = {name: metrics[name] for name in self.best_metrics if name in metrics}
        return replace(self, best=value, best_step=step, best_metrics=metrics)

    def at(self, step: int) -> dict[str, float]:
        """Metrics logged at the current step so far."""
        if self.curve and self.curve[-1][0] == step:
            return self.curve[-1][1]
        return {}

    def latest(self, name: str) -> float | None:
        """The last value of a metric; None if it was never logged."""
        point = self.latest_point(name)
        return point[1] if point else None

    def latest_point(self, name: str) -> tuple[int, float] | None:
        """(step, value) of the last value of a metric; None if it was never logged."""
        return next(
            ((step, metrics[name]) for step, metrics in reversed(self.curve) if name in metrics),
            None,
        )


class TrainStateDict(TypedDict):
    """What `TrainState.state_dict` returns. `data` is checked by the loader that it belongs to.

    `architecture` is the resolved `model` node of the weights, without names of pretrained ones.
    """

    architecture: dict[str, Any]
    vocab_size: Count
    progress: Progress
    history: History
    running: RunningTotals
    data: dict[str, object]


class RunMetadata(TypedDict):
    """Metadata of the run in a checkpoint, to be resumed, verified and compared later.

    Fingerprints and digests are hexadecimal. `config` is checked against the allowlist where it is used.
    """

    config: dict[str, Any]
    config_hash: str
    choices: dict[str, str]  # config group -> option
    overrides: list[str]  # the last value typed for each key in the run so far
    # Listed in order, up to the one whose process saved the checkpoint.
    continued: NotRequired[list[Continuation]]
    versions: dict[str, str]  # package -> version
    data: str  # fingerprint
    held_out: str  # fingerprint of the validation examples
    tokenizer: str  # fingerprint
    teachers: dict[str, str]  # name -> digest of the weights
    initial_weights: dict[str, str]  # what `model.init_from` named -> digest of the weights
    kernels: str  # printed form of a `KernelSet`
    uid: str  # id in the tracking store, "" if the run is not tracked
    epochs: NotRequired[Size]  # the choice of `trainer.epochs=auto`


class SavedState(TrainStateDict):
    """`state.json` of a checkpoint. `base` is the digest of its frozen weights, "" if it holds all weights itself."""

    metadata: RunMetadata
    base: str


def parse_state(data: bytes) -> SavedState:
    """The contents of `state.json`; raises DataError or UnicodeDecodeError."""
    return parse_json(data.decode("utf-8"), SavedState, STATE, allow_nan=True)  # metrics may be NaN


def empty_metadata() -> RunMetadata:
    """The metadata of training without a run folder."""
    return RunMetadata(
        config={},
        config_hash="",
        choices={},
        overrides=[],
        versions={},
        data="",
        held_out="",
        tokenizer="",
        teachers={},
        initial_weights={},
        kernels="",
        uid="",
    )
