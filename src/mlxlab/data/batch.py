"""What data sets hand to training: a batch, a stream of batches that can be resumed, and the task they pose."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np


class Batch(NamedTuple):
    """B examples of T tokens, as NumPy arrays. Shorter examples are padded on the right."""

    tokens: np.ndarray  # (B, T) int32
    mask: np.ndarray  # (B, T) int32: 0 is padding, k > 0 the document's number in its row; bool: one document a row
    targets: np.ndarray  # (B,) a class per example, or (B, T) a token per place; int32
    weights: np.ndarray  # like targets, float32; 0 is not a target
    ids: np.ndarray  # (B,) int64: which example this is, the same number in every epoch
    extra: dict[str, np.ndarray] = {}  # whatever else a loss needs, by name: (B, ...)


class BatchIterator(Protocol):
    """An endless stream of batches, an epoch at a time, whose place can be saved and restored."""

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch from the present place; at its end the place is the start of the next epoch."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        ...

    @property
    def at_start(self) -> bool:
        """Is the next batch the first of its epoch?"""
        ...

    @property
    def count(self) -> int | None:
        """Batches per epoch; an estimate where a stream can only guess, None where it cannot."""
        ...

    @property
    def batch_tokens(self) -> int | None:
        """Tokens of a full batch where all are alike, else None."""
        ...

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches, in all."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The place after the batch last handed out, as JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place, without replaying what came before it."""
        ...


@dataclass(frozen=True)
class Task:
    """What is to be learned from the batches."""

    kind: Literal["classification", "language_modelling"]
    num_classes: int  # for language modelling the size of the vocabulary
    labels: tuple[str, ...] = ()  # names of the classes
    masked: bool = False  # language modelling: guess hidden tokens (True) or the next one (False)
    token_bytes: tuple[int, ...] = ()  # bytes of UTF-8 by token id, for bits per byte
