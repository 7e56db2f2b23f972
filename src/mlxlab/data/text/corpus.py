"""The text of a run: what is trained on and what is validated on, without a document in common."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import xxhash

from mlxlab.constraints import Gt, Lt, Size
from mlxlab.data.text.document import DocumentSource, Position, Windows
from mlxlab.data.text.sources.mixture import Mixture
from mlxlab.errors import ConfigError, DataError

SIDE_USES = {"train": "train on", "valid": "validate on"}
HASH_RANGE = 2**32


@dataclass(frozen=True)
class Validation:
    """Options for the validation data.

    Args:
        source: text to validate on; null takes `split` of the training source, or holds out some of its documents.
        split: of `source`, or of the training source where that is null.
        fraction: fraction of the documents that is held out where neither is given.
        max_examples: maximum number of documents; they are kept in memory as tokens.
    """

    source: str | None
    split: str | None
    fraction: Annotated[float, Gt(0), Lt(1)]
    max_examples: Size


def open_corpus(
    sources: Mapping[str, float],
    split: str | None,
    validation: Validation,
    window: int,
    open_source: Callable[[str, str | None], DocumentSource],
) -> tuple[DocumentSource, DocumentSource, list[str]]:
    """Opens training and validation text; also returns lines for the log.

    Where `validation` names nothing, the split `validation` of a Hugging Face data set that has one is taken, or else
    documents of the training source are held out.

    Args:
        sources: names with their weights.
        split: of the sources, to train on.
        open_source: opens a split of a source; what it raises is passed on.
    """
    first = next(iter(sources))
    opened = [open_source(source, split) for source in sources]
    train = opened[0] if len(opened) == 1 else Mixture(opened, list(sources.values()), window)
    lines, valid = [f"{train.name}: {_size(train)}"], None
    if validation.source is not None or validation.split is not None:
        valid = open_source(validation.source or first, validation.split)
    elif len(sources) == 1:
        with suppress(ConfigError):  # it has no such split, as local files
            valid = open_source(first, "validation")
    if valid is None:
        fraction = validation.fraction
        lines.append(f"{train.name}: {fraction:.2%} of the documents are held out for validation")
        return HoldoutSplit(train, fraction, "train"), HoldoutSplit(train, fraction, "valid"), lines
    lines.append(f"{valid.name}: {_size(valid)}, for validation")
    if valid.fingerprint == train.fingerprint:
        lines.append(f"{valid.name}: warning: validation uses the training text")
    return train, valid, lines


def _size(source: DocumentSource) -> str:
    return "text of unknown size" if source.bytes is None else f"{source.bytes / 1e6:.1f} MB of text"


class HoldoutSplit:
    """The training or the validation documents of a source, by a hash of their text.

    A document and all its copies are on the same side in every epoch, whatever is added to the source: training and
    validation share no text.

    Args:
        fraction: approximate fraction of the documents that is held out.
        side: `valid` for the held-out documents, `train` for the others.
    """

    def __init__(self, source: DocumentSource, fraction: float, side: Literal["train", "valid"]) -> None:
        self.source, self.fraction, self.side, self.error_budgets = source, fraction, side, source.error_budgets
        self.name, self.fingerprint = source.name, f"{source.fingerprint}|{side} {fraction:g}"
        size = fraction if side == "valid" else 1 - fraction
        self.bytes = None if source.bytes is None else round(source.bytes * size)

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. Positions are those of the source."""
        empty = position is None
        for start, documents in self.source.windows(seed, epoch, position):
            digests = [xxhash.xxh3_64_intdigest(document.text.encode()) for document in documents]
            held_out = (np.array(digests, np.uint64) >> np.uint64(32)) < round(self.fraction * HASH_RANGE)
            selected = [documents[index] for index in np.flatnonzero(held_out == (self.side == "valid"))]
            if selected:
                empty = False
                yield start, selected
        if empty:
            fraction = f"data.validation.fraction={self.fraction:g}"
            raise DataError(f"{self.name}: {fraction} leaves no document to {SIDE_USES[self.side]}")
