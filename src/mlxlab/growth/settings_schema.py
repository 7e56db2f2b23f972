"""Operations that change settings of the trainer, as they stand in the config; and what an operation waits for."""

from typing import Literal, NotRequired, TypedDict

from mlxlab.constraints import Count, Fraction, Positive, Size

Then = Literal["evaluate"] | None


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


class SetLearningRate(TypedDict):
    """Sets the peak of the learning-rate schedule.

    Args:
        learning_rate: the new one.
    """

    id: str
    op: Literal["set_learning_rate"]
    learning_rate: Positive
    when: When
    then: NotRequired[Then]


class Rewarm(TypedDict):
    """Raises the learning rate from 0 again.

    Args:
        steps: of linear warm-up.
        restart: begin the whole schedule anew for the rest of the run.
    """

    id: str
    op: Literal["rewarm"]
    steps: Count
    restart: NotRequired[bool]
    when: When
    then: NotRequired[Then]


class SetBatchSize(TypedDict):
    """Changes the rows of a batch.

    Args:
        batch_size: the new one.
    """

    id: str
    op: Literal["set_batch_size"]
    batch_size: Size
    when: When
    then: NotRequired[Then]


class SetAccumulation(TypedDict):
    """Changes the number of micro-batches, with trainer=optimized.

    Args:
        accumulate: the new number.
    """

    id: str
    op: Literal["set_accumulation"]
    accumulate: Size
    when: When
    then: NotRequired[Then]


class SetEvaluation(TypedDict):
    """Changes how often is evaluated, and on how much.

    Args:
        eval_every: steps between evaluations; null leaves it.
        eval_batches: validation batches; null leaves it.
    """

    id: str
    op: Literal["set_evaluation"]
    eval_every: NotRequired[Size | None]
    eval_batches: NotRequired[Size | None]
    when: When
    then: NotRequired[Then]


class SetCurriculum(TypedDict):
    """Changes the strength of the curriculum, with data/order=curriculum.

    Args:
        strength: the new one.
    """

    id: str
    op: Literal["set_curriculum"]
    strength: Fraction
    when: When
    then: NotRequired[Then]


SettingsOperation = SetLearningRate | Rewarm | SetBatchSize | SetAccumulation | SetEvaluation | SetCurriculum
