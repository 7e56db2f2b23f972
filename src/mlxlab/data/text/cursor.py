"""Positions in streamed text, as they are saved in a checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from mlxlab.constraints import Count
from mlxlab.data.cursor import load_cursor


@dataclass(frozen=True)
class DocumentCursor:
    """A document of an epoch.

    Args:
        window: the position of its window, in the terms of the source (JSON); None is the first window.
        documents_before: documents of the epoch in earlier windows.
        document: index in the shuffled window.
    """

    window: object = None
    documents_before: int = 0
    document: int = 0


@dataclass(frozen=True)
class TextCursor:
    """The next row of an epoch: a shuffle buffer of rows, by where it starts in the text, and the rows drawn from it.

    Args:
        row: number, in the epoch, of the first row of the buffer.
        rows_drawn: rows of the buffer that were used.
        start: the document of the first token of the buffer.
        offset: index of that token in its document.
    """

    epoch: int = 0
    row: int = 0
    rows_drawn: int = 0
    start: DocumentCursor = field(default_factory=DocumentCursor)
    offset: int = 0

    def to_json(self, fingerprint: str) -> dict[str, object]:
        return {**asdict(self), "fingerprint": fingerprint}

    @staticmethod
    def from_json(state: Mapping[str, object], fingerprint: str) -> "TextCursor":
        """Raises DataError if the state is malformed or was saved with other data."""
        saved = load_cursor(state, _TextState, fingerprint)
        return TextCursor(
            saved["epoch"], saved["row"], saved["rows_drawn"], DocumentCursor(**saved["start"]), saved["offset"]
        )


class _DocumentState(TypedDict):
    window: object
    documents_before: Count
    document: Count


class _TextState(TypedDict):
    epoch: Count
    row: Count
    rows_drawn: Count
    start: _DocumentState
    offset: Count
    fingerprint: str
