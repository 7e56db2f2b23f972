"""Documents, and the sources that yield them in windows."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

Position = object  # JSON that a source understands: where a window begins


class Document(NamedTuple):
    """A text and its number.

    `id` is the same in every epoch and unique within its source (in mixtures up to collisions of 63-bit hashes).
    """

    id: int
    text: str


Windows = Iterator[tuple[Position, list[Document]]]


class DocumentSource(Protocol):
    """Documents in windows, each small enough to be held in memory and shuffled there.

    `fingerprint` covers names, sizes and samples of the content, and all settings on which the windows depend.
    Documents that are empty or only white space are left out, and are not counted as malformed.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def bytes(self) -> int | None:
        """Size of all the text in UTF-8, exact or estimated; None if unknown."""
        ...

    @property
    def skipped_records(self) -> int:
        """Malformed records that were skipped so far."""
        ...

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """The windows of an epoch, in that epoch's order, from `position` on (None is the first window).

        Yields each window's own position and its documents, at least one. Seeking does not replay earlier windows.

        Raises:
            DataError: malformed text, data that changed during the run, an invalid position, or no document at all.
        """
        ...
