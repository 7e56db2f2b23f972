"""What a language model is trained on: documents, and the sources that give them a window at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

Place = Any  # JSON: where a window is, for the source that gave it


class Document(NamedTuple):
    """A text and its number.

    `id` is unique within its source (hub sets and mixtures: but for chance in 2^63) and the same in every epoch.
    """

    id: int
    text: str


class DocumentSource(Protocol):
    """Documents in windows, each small enough to be held in memory and shuffled there.

    `bytes` is the size of all its text, where known or estimated, else None; `skipped` counts the malformed records
    that were passed over so far. Documents that are empty or only white space are not given, and are no fault.
    """

    name: str
    fingerprint: str  # of names, sizes and samples of the content, and of all settings on which the windows depend
    bytes: int | None

    @property
    def skipped(self) -> int: ...

    def windows(self, seed: int, epoch: int, place: Place = None) -> Iterator[tuple[Place, list[Document]]]:
        """The windows of an epoch in that epoch's order, from `place` on: (place of this window, its documents).

        Going to a place replays nothing. Windows without a document are left out.

        Raises:
            DataError: malformed text, data that changed meanwhile, a place that is not there, no document at all.
        """
        ...
