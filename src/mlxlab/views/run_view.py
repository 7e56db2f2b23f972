"""What the views of one run show, computed once from its record, and what to change after a bad one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path, PurePath
from statistics import fmean
from typing import NamedTuple

from mlxlab.record.run_record import (
    TOO_LONG,
    Attempt,
    Metrics,
    Parent,
    RunRecord,
    SplitResult,
    Training,
)
from mlxlab.views.numbers import MAIN_OF_TASK, ROWS, SIDE_METRICS, title
from mlxlab.views.verdict import Judgement, judge

FEW_STEPS = 200
HIGH_RATE = 1e-3
FLAT = 0.02  # change of the training loss, as a share of it
ROSE = 0.05
RISE = 0.05  # The validation loss may rise by this share after its minimum.
_OF_ONE_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")
_MACRO = ("roc_auc", "average_precision")
_PER_TOKEN = {"loss": "nats per token", "perplexity": "per token"}


class Advice(NamedTuple):
    """What the training loss did, and what to try."""

    loss: str
    action: str


def advise(losses: Sequence[float], training: Training) -> Advice:
    """`losses` are those of the training, in order."""
    longer = f"Train longer: raise trainer.{training.limit}"
    few = Advice("covers few steps", longer)
    if len(losses) < 2:
        return few
    quarter = max(1, len(losses) // 4)
    start = fmean(losses[:quarter])
    change = fmean(losses[-quarter:]) - start
    rate = f"trainer.learning_rate (it was {training.learning_rate:.2g})"
    if not isfinite(change) or change > ROSE * abs(start):
        return Advice("rose", f"Lower {rate}")
    if training.steps < FEW_STEPS:
        return few
    if change >= -FLAT * abs(start):
        verb = "Lower"
        if training.learning_rate < HIGH_RATE:
            verb = "Raise"
        return Advice("hardly changed", f"{verb} {rate}")
    return Advice("fell", f"{longer}, check the labels, or start from model.pretrained")


class ValidLoss(NamedTuple):
    """The lowest and the last validation loss of a run."""

    lowest_step: int
    lowest: float
    last_step: int
    last: float

    @property
    def rise(self) -> float:
        """The share by which it rose after its lowest value."""
        return (self.last - self.lowest) / (abs(self.lowest) or 1.0)


@dataclass
class RunView:
    """A run as its views show it. `folder` is as the user may type it."""

    record: RunRecord
    folder: Path

    @property
    def results(self) -> list[SplitResult]:
        return self.record.evaluation.results

    @cached_property
    def result(self) -> SplitResult | None:
        """The result on the test rows, if there are any, else on the validation rows."""
        for each in reversed(self.results):
            if each.split != "out_of_fold":
                return each
        return None

    @cached_property
    def valid(self) -> SplitResult | None:
        return next(iter(self.results), None)

    @property
    def values(self) -> Metrics:
        """The metrics of `result`."""
        if self.result is None:
            return {}
        return self.result.metrics

    @cached_property
    def metric(self) -> str:
        """The metric by which the run is judged, without its split."""
        main = self.record.evaluation.main_metric
        main = main or MAIN_OF_TASK.get(self.record.data.task, "")
        if main in self.values:
            return main
        return self.record.training.objective.rpartition("/")[2]

    @cached_property
    def judgement(self) -> Judgement:
        if self.result is None:
            return Judgement(self.metric, None)
        return judge(self.result, self.metric)

    @property
    def value(self) -> float | None:
        return self.judgement.value

    @property
    def rows_name(self) -> str:
        return ROWS[self.result.split] if self.result else "validation"

    @property
    def is_text(self) -> bool:
        return self.record.data.task == "language_modelling"

    def title(self, metric: str) -> str:
        """A metric with the class that it is of, how it is averaged, or its unit."""
        data = self.record.data
        name = title(metric)
        if self.is_text and metric in _PER_TOKEN:
            return f"{name} ({_PER_TOKEN[metric]})"
        if metric not in _OF_ONE_CLASS or not data.num_classes:
            return name
        if data.positive_class:
            return f"{name} of {data.positive_class}"
        if metric in _MACRO:
            return f"{name}, macro average"
        return f"{name}, weighted average"

    @cached_property
    def side_metrics(self) -> list[tuple[str, float]]:
        """Two more metrics for the first screen."""
        found = []
        for name in SIDE_METRICS:
            value = self.values.get(name)
            if value is not None and name != self.metric:
                found.append((name, value))
        return found[:2]

    @cached_property
    def origin(self) -> str:
        """The weights that training began with; "" for random ones."""
        for parent in self.record.parents:
            if parent.kind in ("checkpoint", "pretrained", "init_from"):
                return "/".join(PurePath(parent.of).parts[-2:])
        return ""

    @cached_property
    def teachers(self) -> list[Parent]:
        return [parent for parent in self.record.parents if parent.kind == "teacher"]

    @property
    def student(self) -> Metrics:
        """The student at its best evaluation."""
        last = self.record.evaluation.models.get("student", {})
        if self.valid is None:
            return last
        best = self.valid.metrics
        return {name: best.get(name, value) for name, value in last.items()}

    @property
    def teacher(self) -> Metrics:
        return self.record.evaluation.models.get("teacher", {})

    @property
    def teacher_value(self) -> float | None:
        return self.teacher.get(self.metric)

    def student_share(self, name: str) -> float | None:
        """A quantity of the student as a share of that of the teacher."""
        own = self.student.get(name)
        other = self.teacher.get(name)
        if not own or not other:
            return None
        return own / other

    @property
    def data_name(self) -> str:
        data = self.record.data
        return PurePath(data.source).name or data.name

    @property
    def epochs(self) -> float | None:
        """Epochs of batches of one size; None where that is not known."""
        training = self.record.training
        if training.is_resized or not training.batches_per_epoch:
            return None
        return training.steps / training.batches_per_epoch

    @property
    def deciding_attempt(self) -> Attempt:
        """The last one with the status of the run: one that was refused leaves it as it was."""
        attempts = self.record.attempts
        same = [each for each in attempts if each.status == self.record.status]
        trained = [each for each in same if each.trained]
        return (trained or same or attempts)[-1]

    @property
    def warnings(self) -> list[str]:
        """Warnings of all attempts, without the one on long rows: the record has their number."""
        lines = []
        for attempt in self.record.attempts:
            lines += [line for line in attempt.warnings if TOO_LONG not in line]
        return lines

    @property
    def truncated_share(self) -> float:
        data = self.record.data
        return data.truncated_rows / max(1, data.measured_rows)

    @cached_property
    def valid_loss(self) -> ValidLoss | None:
        points = self.points("valid/loss")
        if len(points) < 2:
            return None
        step, lowest = min(points, key=lambda point: point[1])
        return ValidLoss(step, lowest, *points[-1])

    @cached_property
    def advice(self) -> Advice:
        losses = [value for _, value in self.points("train/loss")]
        return advise(losses, self.record.training)

    def points(self, key: str) -> list[tuple[int, float]]:
        """The finite values of a metric by step."""
        curve = self.record.training.curve
        return [(step, y) for step, metrics in curve if (y := metrics.get(key)) is not None]
