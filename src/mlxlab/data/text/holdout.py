"""Documents that are held out of a source for validation, by a hash of their text."""

from typing import Literal

import numpy as np
import xxhash

from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows
from mlxlab.errors import DataError
from mlxlab.wording import percent

SIDE_USES = {"train": "train on", "valid": "validate on"}
HASH_RANGE = 2**32
MAX_SEARCHED = 2**25  # bytes of a source that may have no document below the limit


def hold_out(
    source: DocumentSource,
    fraction: float,
    key: str = "data.valid_fraction",
    noun: str = "document",
) -> tuple["HoldoutSplit", "HoldoutSplit", str]:
    """The training and the validation documents of a source, and a line for the log.

    A small source, a fraction of which may be no document at all, is searched until one is found; of one without any
    the document with the lowest hash is held out.

    Args:
        key, noun: of the config that sets `fraction`, and what a document is called, for messages.

    Raises:
        DataError: the source has one document only, or is malformed.
    """
    limit, share = round(fraction * HASH_RANGE), f"{percent(fraction, 2)} of the {noun}s are"
    if source.bytes is not None and source.bytes <= MAX_SEARCHED:
        lowest = _lowest_hashes(source, limit)
        if lowest and lowest[0] >= limit:
            if len(lowest) == 1:
                raise DataError(f"{source.name}: one {noun}, expected two or more")
            limit, share = lowest[0] + 1, f"1 {noun} (by {key}={fraction:g} none) is"
    train = HoldoutSplit(source, fraction, "train", key, noun, limit)
    valid = HoldoutSplit(source, fraction, "valid", key, noun, limit)
    return train, valid, f"{source.name}: {share} held out for validation"


def _lowest_hashes(source: DocumentSource, limit: int) -> list[int]:
    """One or two of the lowest different hashes, from the start of the source to the first one below the limit."""
    lowest: list[int] = []
    for _, documents in source.windows(0, 0):
        lowest = sorted({*lowest, *hashes(documents).tolist()})[:2]
        if lowest and lowest[0] < limit:
            break
    return lowest


def hashes(documents: list[Document]) -> np.ndarray:
    """Of their texts, (N,) in [0, HASH_RANGE)."""
    digests = [xxhash.xxh3_64_intdigest(document.text.encode()) for document in documents]
    return np.array(digests, np.uint64) >> np.uint64(32)


class HoldoutSplit:
    """The training or the validation documents of a source, by a hash of their text.

    A document and all its copies are on the same side in every epoch, whatever is added to the source: training and
    validation share no text.

    Args:
        fraction: approximate fraction of the documents that is held out.
        side: `valid` for the held-out documents, `train` for the others.
        key, noun: of the config that sets `fraction`, and what a document is called, for messages.
        limit: documents with a lower hash are held out; None is that of `fraction`.
    """

    def __init__(
        self,
        source: DocumentSource,
        fraction: float,
        side: Literal["train", "valid"],
        key: str = "data.valid_fraction",
        noun: str = "document",
        limit: int | None = None,
    ) -> None:
        self.source, self.fraction, self.side, self.key, self.noun = (
            source,
            fraction,
            side,
            key,
            noun,
        )
        self.limit = round(fraction * HASH_RANGE) if limit is None else limit
        self.name, self.fingerprint = source.name, f"{source.fingerprint}|{side} {fraction:g}"
        size = fraction if side == "valid" else 1 - fraction
        self.bytes = None if source.bytes is None else round(source.bytes * size)

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. Positions are those of the source."""
        empty = position is None
        for start, documents in self.source.windows(seed, epoch, position):
            held_out = hashes(documents) < self.limit
            selected = [
                documents[index] for index in np.flatnonzero(held_out == (self.side == "valid"))
            ]
            if selected:
                empty = False
                yield start, selected
        if empty:
            use = f"leaves no {self.noun} to {SIDE_USES[self.side]}"
            raise DataError(f"{self.name}: {self.key}={self.fraction:g} {use}")
