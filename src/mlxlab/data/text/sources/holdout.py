"""The part of a source that is held out for validation: by the text of each document, so it never moves.

A document is on one side in every epoch, whatever is added to the source, and so are all its copies: no text that is
trained on is ever validated on.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import xxhash

from mlxlab.data.text.document import Document, DocumentSource, Position
from mlxlab.errors import DataError

Part = Literal["train", "valid"]
USES = {"train": "train on", "valid": "validate on"}
PARTS = 2**32


class HoldoutSplit:
    """One side of a source.

    Args:
        share: of the documents that are held out, about; 0 for none.
        part: `valid` gives those, `train` the others.
    """

    def __init__(self, source: DocumentSource, share: float, part: Part) -> None:
        self.source, self.share, self.part = source, share, part
        self.name, self.fingerprint = source.name, f"{source.fingerprint}|{part} {share:g}"
        size = share if part == "valid" else 1 - share
        self.bytes = None if source.bytes is None else round(source.bytes * size)

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `Source`. A place is one of the source."""
        empty = position is None
        for here, documents in self.source.windows(seed, epoch, position):
            mine = [documents[index] for index in np.flatnonzero(self._is_mine(documents))]
            if mine:
                empty = False
                yield here, mine
        if empty:
            share = f"data.validation.fraction={self.share:g}"
            raise DataError(f"{self.name}: {share} leaves no document to {USES[self.part]}")

    def _is_mine(self, documents: list[Document]) -> np.ndarray:
        digests = [xxhash.xxh3_64_intdigest(document.text.encode()) for document in documents]
        held_out = (np.array(digests, np.uint64) >> np.uint64(32)) < round(self.share * PARTS)
        return held_out == (self.part == "valid")
