"""What a run trains, in numbers and names, for its manifest and its report."""

from typing import TypedDict


class RunFacts(TypedDict, total=False):
    """What the model is to do, and with what; `examples` by split."""

    task: str  # as `Task.kind`
    masked: bool
    label: str  # column
    columns: list[str]  # that the model reads
    classes: list[str]  # names of the first classes or labels
    num_classes: int
    positive_class: str  # of two
    examples: dict[str, int]
    text: dict[str, tuple[int, int]]  # documents and tokens of a text by split
    estimated: list[str]  # splits whose sizes are estimated
    tokenizer: str  # kind
    vocab_size: int
    parameters: int
    trainable_parameters: int
    batches_per_epoch: int
    epochs: int  # of trainer.epochs=auto
