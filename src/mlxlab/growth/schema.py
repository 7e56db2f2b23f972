"""Operations of a growth schedule, as they stand in the config: `op` chooses the record."""

from typing import Annotated, Literal, NotRequired, TypedDict

from mlxlab.constraints import Count, MinLen, NonNegative, Positive, Size


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


class Stack(TypedDict):
    """Adds copies of layers, which do nothing at first: their outputs are zero, or gated by zero in a post-norm BERT.

    Args:
        map: for each new layer the old one; [0, 0, 1, 1] doubles two layers.
        preserve: false allows maps that drop or reorder layers, and takes all copies as they are.
    """

    id: str
    op: Literal["stack"]
    map: Annotated[list[Count], MinLen(1)]
    preserve: NotRequired[bool]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class Widen(TypedDict):
    """Copies hidden units of the feed-forward layers (Net2Net, Chen et al. 2016).

    Args:
        feed_forward: the new intermediate_size.
        noise: standard deviation of noise on the inputs of the copies; their outputs differ without it too.
    """

    id: str
    op: Literal["widen"]
    feed_forward: Size
    noise: NotRequired[NonNegative]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class AddHeads(TypedDict):
    """Adds attention heads of the same size, whose outputs are zero at first.

    Args:
        heads: the new num_heads; key-value heads grow in the same proportion.
    """

    id: str
    op: Literal["add_heads"]
    heads: Size
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class GrowWidth(TypedDict):
    """Adds dimensions to the states, which are zero at first; exact for models with RMSNorm.

    Args:
        hidden_size: the new one.
    """

    id: str
    op: Literal["grow_width"]
    hidden_size: Size
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class ResizeVocabulary(TypedDict):
    """Adds tokens at the end of the vocabulary, or removes the last ones.

    Args:
        size: the new number of tokens.
        source: token whose embedding new ones start from; null draws them.
        noise: standard deviation of the noise on these copies, 0.01 by default.
    """

    id: str
    op: Literal["resize_vocabulary"]
    size: Size
    source: NotRequired[Count | None]
    noise: NotRequired[NonNegative]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class SetLoRA(TypedDict):
    """Adds adapters, or merges those that there are into the weights and adds new ones of another rank.

    Args:
        rank: of the new adapters.
        alpha: their scale; null keeps that of the adapters before, or 2 x rank.
        targets: patterns of the layers; null keeps those before, or adapts attention and feed-forward layers.
    """

    id: str
    op: Literal["set_lora"]
    rank: Size
    alpha: NotRequired[Positive | None]
    targets: NotRequired[list[str] | None]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class MergeLoRA(TypedDict):
    """Folds the adapters into the weights, which train from then on."""

    id: str
    op: Literal["merge_lora"]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class Freeze(TypedDict):
    """Stops training the parameters that match.

    Args:
        patterns: as in `model.freeze`.
    """

    id: str
    op: Literal["freeze"]
    patterns: Annotated[list[str], MinLen(1)]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class Unfreeze(TypedDict):
    """Trains parameters again that were frozen.

    Args:
        patterns: those of `model.freeze`, or of an operation before, that no longer hold; null is all.
    """

    id: str
    op: Literal["unfreeze"]
    patterns: NotRequired[list[str] | None]
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class SetLearningRate(TypedDict):
    """Sets the peak of the learning-rate schedule.

    Args:
        learning_rate: the new one.
    """

    id: str
    op: Literal["set_learning_rate"]
    learning_rate: Positive
    when: When
    then: NotRequired[Literal["evaluate"] | None]


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
    then: NotRequired[Literal["evaluate"] | None]


class SetBatchSize(TypedDict):
    """Changes the rows of a batch.

    Args:
        batch_size: the new one.
    """

    id: str
    op: Literal["set_batch_size"]
    batch_size: Size
    when: When
    then: NotRequired[Literal["evaluate"] | None]


class SetAccumulation(TypedDict):
    """Changes the number of micro-batches, with trainer=optimized.

    Args:
        accumulate: the new number.
    """

    id: str
    op: Literal["set_accumulation"]
    accumulate: Size
    when: When
    then: NotRequired[Literal["evaluate"] | None]


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
    then: NotRequired[Literal["evaluate"] | None]


class SetCurriculum(TypedDict):
    """Changes the strength of the curriculum, with data/order=curriculum.

    Args:
        strength: the new one.
    """

    id: str
    op: Literal["set_curriculum"]
    strength: NonNegative
    when: When
    then: NotRequired[Literal["evaluate"] | None]


ArchitectureOperation = (
    Stack | Widen | AddHeads | GrowWidth | ResizeVocabulary | SetLoRA | MergeLoRA | Freeze | Unfreeze
)
SettingsOperation = SetLearningRate | Rewarm | SetBatchSize | SetAccumulation | SetEvaluation | SetCurriculum
Operation = (
    Stack
    | Widen
    | AddHeads
    | GrowWidth
    | ResizeVocabulary
    | SetLoRA
    | MergeLoRA
    | Freeze
    | Unfreeze
    | SetLearningRate
    | Rewarm
    | SetBatchSize
    | SetAccumulation
    | SetEvaluation
    | SetCurriculum
)
