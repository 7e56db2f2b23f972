"""All documents of a source as tokens in memory: tokenised once, in the same order as when they are streamed."""

from collections.abc import Iterator

import numpy as np

from mlxlab.data.text.token_stream import Cursor, TokenChunk, TokenStream


class InMemoryTokens:
    """Reads and tokenises everything at once. Afterwards only the order of an epoch is asked of the source.

    `total` is the number of tokens of an epoch.
    """

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        chunks = list(stream(0, Cursor()))
        none = [np.zeros(0, np.int64)]
        ids, lengths = (np.concatenate([*none, *(getattr(c, n) for c in chunks)]) for n in ("ids", "lengths"))
        self.total = int(lengths.sum())
        self.tokens = np.concatenate([np.zeros(0, np.int32), *(chunk.tokens for chunk in chunks)])
        self.ids, first = np.unique(ids, return_index=True)
        self.lengths, self.starts = lengths[first], (np.cumsum(lengths) - lengths)[first]

    @property
    def skipped(self) -> int:
        return self.stream.skipped

    def __call__(self, epoch: int, place: Cursor) -> Iterator[TokenChunk]:
        for window, first in self.stream.windows(epoch, place):
            ids = np.array([document.id for document in window.documents[first:]], np.int64)
            if len(ids):
                found = np.searchsorted(self.ids, ids)
                parts = zip(self.starts[found], self.starts[found] + self.lengths[found], strict=True)
                tokens = np.concatenate([self.tokens[begin:end] for begin, end in parts])
                numbers = np.arange(first, first + len(ids))
                yield TokenChunk(window.place, window.before, numbers, ids, self.lengths[found], tokens, 0)
