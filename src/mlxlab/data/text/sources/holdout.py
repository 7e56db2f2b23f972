"""Holds out documents of a source for validation, by a hash of their text.

A document and all its copies are on the same side in every epoch, whatever is added to the source: training and
validation share no text.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import xxhash

from mlxlab.data.text.document import Document, DocumentSource, Position
from mlxlab.errors import DataError

Side = Literal["train", "valid"]
SIDE_USES = {"train": "train on", "valid": "validate on"}
HASH_RANGE = 2**32


class HoldoutSplit:
    """The training or the validation documents of a source.

    Args:
        fraction: approximate fraction of the documents that is held out.
        side: `valid` for the held-out documents, `train` for the others.
    """

    def __init__(self, source: DocumentSource, fraction: float, side: Side) -> None:
        self.source, self.fraction, self.side = source, fraction, side
        self.name, self.fingerprint = source.name, f"{source.fingerprint}|{side} {fraction:g}"
        size = fraction if side == "valid" else 1 - fraction
        self.bytes = None if source.bytes is None else round(source.bytes * size)

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `DocumentSource`. Positions are those of the source."""
        empty = position is None
        for start, documents in self.source.windows(seed, epoch, position):
            selected = [documents[index] for index in np.flatnonzero(self._on_side(documents))]
            if selected:
                empty = False
                yield start, selected
        if empty:
            fraction = f"data.validation.fraction={self.fraction:g}"
            raise DataError(f"{self.name}: {fraction} leaves no document to {SIDE_USES[self.side]}")

    def _on_side(self, documents: list[Document]) -> np.ndarray:
        digests = [xxhash.xxh3_64_intdigest(document.text.encode()) for document in documents]
        held_out = (np.array(digests, np.uint64) >> np.uint64(32)) < round(self.fraction * HASH_RANGE)
        return held_out == (self.side == "valid")
