"""All documents of a source as tokens in memory: tokenised once, in the same order as when they are streamed."""

from collections.abc import Generator

import numpy as np

from mlxlab.data.text.cursor import DocumentCursor
from mlxlab.data.text.token_stream import TokenChunk, TokenStream


class InMemoryTokens:
    """Reads and tokenises everything when made. Afterwards the source only determines the order of each epoch.

    `num_tokens` is the number of tokens of an epoch.
    """

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        chunks = list(stream(0, DocumentCursor()))
        ids = np.concatenate([np.zeros(0, np.int64), *(chunk.ids for chunk in chunks)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(chunk.lengths for chunk in chunks)])
        self.num_tokens = int(lengths.sum())
        self.tokens = np.concatenate([np.zeros(0, np.int32), *(chunk.tokens for chunk in chunks)])
        self.ids, first = np.unique(ids, return_index=True)
        self.lengths, self.starts = lengths[first], (np.cumsum(lengths) - lengths)[first]

    @property
    def skipped_records(self) -> int:
        return self.stream.skipped_records

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for window, first in self.stream.windows(epoch, start):
            ids = np.array([document.id for document in window.documents[first:]], np.int64)
            if len(ids):
                rows = np.searchsorted(self.ids, ids)
                begins, ends = self.starts[rows], self.starts[rows] + self.lengths[rows]
                tokens = np.concatenate([self.tokens[i:j] for i, j in zip(begins, ends, strict=True)])
                indices = np.arange(first, first + len(ids))
                yield TokenChunk(window.position, window.documents_before, indices, ids, self.lengths[rows], tokens, 0)
