"""The operations of a growth schedule, as they stand in the config: `op` chooses the record."""

from typing import Annotated, Literal, NotRequired, TypedDict

from mlxlab.schema.constraints import Count, Fraction, MinLen, NonNegative, Positive, Size


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


class Stack(ScheduledOperation):
    """Adds copies of layers, which do nothing at first: their outputs are zero, or gated by zero in a post-norm BERT.

    Args:
        map: for each new layer the old one; [0, 0, 1, 1] doubles two layers.
        preserve: false allows maps that drop or reorder layers, and takes all copies as they are.
    """

    op: Literal["stack"]
    map: Annotated[list[Count], MinLen(1)]
    preserve: NotRequired[bool]


class Widen(ScheduledOperation):
    """Copies hidden units of the feed-forward layers (Net2Net, Chen et al. 2016).

    Args:
        feed_forward: the new intermediate_size.
    """

    op: Literal["widen"]
    feed_forward: Size


class AddHeads(ScheduledOperation):
    """Adds attention heads of the same size, whose outputs are zero at first.

    Args:
        heads: the new num_heads; key-value heads grow in the same proportion.
    """

    op: Literal["add_heads"]
    heads: Size


class GrowWidth(ScheduledOperation):
    """Adds dimensions to the states, which are zero at first; exact for models with RMSNorm.

    Args:
        hidden_size: the new one.
    """

    op: Literal["grow_width"]
    hidden_size: Size


class ResizeVocabulary(ScheduledOperation):
    """Adds tokens at the end of the vocabulary, or removes the last ones.

    Args:
        size: the new number of tokens.
        source: token whose embedding new ones start from, or mean for the mean of all; null draws them.
        noise: standard deviation of the noise on these copies, 0.01 by default.
    """

    op: Literal["resize_vocabulary"]
    size: Size
    source: NotRequired[Count | Literal["mean"] | None]
    noise: NotRequired[NonNegative]


class SetLoRA(ScheduledOperation):
    """Adds adapters, or merges those that there are into the weights and adds new ones of another rank.

    Args:
        rank: of the new adapters.
        alpha: their scale; null keeps that of the adapters before, or 2 x rank.
        targets: patterns of the layers; null keeps those before, or adapts attention and feed-forward layers.
    """

    op: Literal["set_lora"]
    rank: Size
    alpha: NotRequired[Positive | None]
    targets: NotRequired[list[str] | None]


class MergeLoRA(ScheduledOperation):
    """Folds the adapters into the weights, which train from then on."""

    op: Literal["merge_lora"]


class Freeze(ScheduledOperation):
    """Stops training the parameters that match.

    Args:
        patterns: as in `model.freeze`.
    """

    op: Literal["freeze"]
    patterns: Annotated[list[str], MinLen(1)]


class Unfreeze(ScheduledOperation):
    """Trains parameters again that were frozen.

    Args:
        patterns: those of `model.freeze`, or of an operation before, that no longer hold; null is all.
    """

    op: Literal["unfreeze"]
    patterns: NotRequired[list[str] | None]


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


ArchitectureOperation = (
    Stack
    | Widen
    | AddHeads
    | GrowWidth
    | ResizeVocabulary
    | SetLoRA
    | MergeLoRA
    | Freeze
    | Unfreeze
)
Operation = (
    ArchitectureOperation
    | SetLearningRate
    | Rewarm
    | SetBatchSize
    | SetAccumulation
    | SetEvaluation
    | SetCurriculum
)
