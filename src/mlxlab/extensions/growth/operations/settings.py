"""Operations that change settings of the trainer, as they stand in the config; and what an operation waits for."""

from dataclasses import replace
from typing import Literal, NotRequired, TypedDict

from mlxlab.checkpoint.state import ChangedSettings
from mlxlab.constraints import Count, Fraction, Positive, Size


class When(TypedDict):
    """What an operation waits for; it runs as soon as one of these holds.

    Args:
        metric_below: the objective of the last evaluation is below this.
        metric_above: it is above this.
        or_steps: steps since the operation before, or since the start.
    """

    metric_below: NotRequired[float]
    metric_above: NotRequired[float]
    or_steps: NotRequired[Size]


class ScheduledOperation(TypedDict):
    """What every operation has.

    Args:
        id: its name, unique in the schedule.
        when: what it waits for.
        then: evaluate evaluates after it.
    """

    id: str
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class SetLearningRate(ScheduledOperation):
    """Sets the peak of the learning-rate schedule.

    Args:
        learning_rate: the new one.
    """

    op: Literal["set_learning_rate"]
    learning_rate: Positive


class Rewarm(ScheduledOperation):
    """Raises the learning rate from 0 again.

    Args:
        steps: of linear warm-up.
        restart: begin the whole schedule again for the rest of the run.
    """

    op: Literal["rewarm"]
    steps: Count
    restart: NotRequired[bool]


class SetBatchSize(ScheduledOperation):
    """Changes the rows of a batch.

    Args:
        batch_size: the new one.
    """

    op: Literal["set_batch_size"]
    batch_size: Size


class SetAccumulation(ScheduledOperation):
    """Changes the number of micro-batches, with trainer=optimized.

    Args:
        accumulate: the new number.
    """

    op: Literal["set_accumulation"]
    accumulate: Size


class SetEvaluation(ScheduledOperation):
    """Changes how often is evaluated, and on how much.

    Args:
        eval_every: steps between evaluations; null leaves it.
        eval_batches: validation batches; null leaves it.
    """

    op: Literal["set_evaluation"]
    eval_every: NotRequired[Size | None]
    eval_batches: NotRequired[Size | None]


class SetCurriculum(ScheduledOperation):
    """Sets `data.order.alpha`, with data/order=curriculum.

    Args:
        alpha: the new one.
    """

    op: Literal["set_curriculum"]
    alpha: Fraction


TrainerOperation = SetLearningRate | Rewarm | SetAccumulation | SetEvaluation | SetCurriculum
SettingsOperation = (
    SetLearningRate | Rewarm | SetBatchSize | SetAccumulation | SetEvaluation | SetCurriculum
)


def change_settings(
    operation: TrainerOperation, settings: ChangedSettings, schedule_step: int
) -> ChangedSettings:
    """The settings after the operation; `schedule_step` is the position on the learning-rate schedule."""
    match operation["op"]:
        case "rewarm":
            start = schedule_step if operation.get("restart", False) else settings.schedule_start
            steps = operation["steps"]
            return replace(
                settings, warmup_start=schedule_step, warmup_steps=steps, schedule_start=start
            )
        case "set_learning_rate":
            return replace(settings, learning_rate=operation["learning_rate"])
        case "set_accumulation":
            return replace(settings, accumulate=operation["accumulate"])
        case "set_curriculum":
            return replace(settings, curriculum_alpha=operation["alpha"])
        case "set_evaluation":
            every, batches = operation.get("eval_every"), operation.get("eval_batches")
            return replace(
                settings,
                eval_every=every or settings.eval_every,
                eval_batches=batches or settings.eval_batches,
            )
