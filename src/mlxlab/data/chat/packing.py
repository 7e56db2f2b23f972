"""Whole conversations as tokens, packed into rows that none of them crosses."""

import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from mlxlab.data.chat.masks import ConversationEncoder, EncodedConversation
from mlxlab.data.text.batches import PackedRows, RowLayout, TextCursor, next_epoch
from mlxlab.data.text.documents import Document, Documents, DocumentSource
from mlxlab.data.text.token_stream import (
    DocumentCursor,
    ShuffledDocuments,
    TokenChunk,
    split_chunks,
)


@dataclass(frozen=True)
class ConversationStream:
    """The shuffled conversations of a source as tokens, a chunk each; dropped ones are left out.

    Args:
        opened: what the shuffled documents are read from.
    """

    shuffled: ShuffledDocuments
    opened: Documents
    encoder: ConversationEncoder

    @property
    def source(self) -> DocumentSource:
        return self.shuffled.source

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for cursor, document, encoded in self.read(epoch, start):
            lengths = np.array([len(encoded.tokens)])
            if lengths[0]:
                ids = np.array([document.id])
                yield TokenChunk([cursor], ids, lengths, encoded.tokens, 0, encoded.is_target)

    def read(
        self, epoch: int, start: DocumentCursor
    ) -> Iterator[tuple[DocumentCursor, Document, EncodedConversation]]:
        """Each conversation, and where it is; a malformed one is skipped."""
        for cursors, _, documents in self.shuffled.windows(epoch, start):
            for chunk in split_chunks(documents):
                conversations = [json.loads(document.text) for document in documents[chunk]]
                results = self.encoder.encode(conversations)
                for index, result in enumerate(results, chunk.start):
                    if isinstance(result, ValueError):
                        self.opened.skip(documents[index].id, result)
                    else:
                        yield cursors[index], documents[index], result


class ConversationPacker:
    """Packs conversations into rows in their order; a row is padded where the next does not fit.

    A layout that does not number documents gets one conversation per row.
    Every row begins with a conversation, so any row is reached by seeking that one. Implements
    `RowSource`.

    Args:
        chunks: of one conversation each, which fits into a row.
        cursor: where they begin.
    """

    def __init__(self, chunks: Iterator[TokenChunk], cursor: TextCursor, layout: RowLayout) -> None:
        self.chunks = chunks
        self.first = cursor
        self.row = cursor["row"]
        self.layout = layout
        self._pending: deque[TokenChunk] = deque()

    @staticmethod
    def num_rows(chunks: Sequence[TokenChunk], layout: RowLayout) -> int:
        return count_rows([len(chunk.tokens) for chunk in chunks], layout)

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""
        rows: list[list[TokenChunk]] = []
        while len(rows) < max_rows and self.more:
            rows.append(self._next_row())
        shape = (len(rows), self.layout.width)
        tokens = np.full(shape, self.layout.pad_id, np.int32)
        is_target = np.zeros(shape, bool)
        documents = np.zeros(shape, np.int64)
        sizes = np.zeros(len(rows), np.int64)
        for number, row in enumerate(rows):
            for index, conversation in enumerate(row):
                begin = sizes[number]
                sizes[number] += len(conversation.tokens)
                part = slice(begin, sizes[number])
                tokens[number, part] = conversation.tokens
                is_target[number, part] = conversation.is_target
                documents[number, part] = index
        ids = np.array([row[0].ids[0] for row in rows], np.int64)
        numbers = self.row + np.arange(len(rows))
        self.row += len(rows)
        return PackedRows(tokens, sizes, documents, ids, numbers, is_target)

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch."""
        if not self._pending:
            self._pending.extend(islice(self.chunks, 1))
        return bool(self._pending)

    @property
    def cursor(self) -> TextCursor:
        """The position of the next conversation; at the end that of the next epoch."""
        if not self.more:
            return next_epoch(self.first)
        start = self._pending[0].cursors[0]
        return {**self.first, "row": self.row, "rows_drawn": 0, "start": start, "offset": 0}

    def _next_row(self) -> list[TokenChunk]:
        """The next conversations, as many as fit; at least one."""
        row = [self._pending.popleft()]
        free = self.layout.length - len(row[0].tokens)
        while self.layout.number_documents and self.more:
            free -= len(self._pending[0].tokens)
            if free < 0:
                break
            row.append(self._pending.popleft())
        return row


def count_rows(lengths: Iterable[int], layout: RowLayout) -> int:
    """Rows of conversations of these lengths, packed as `ConversationPacker` does."""
    rows = 0
    free = -1
    for length in lengths:
        free -= length
        if free < 0 or not layout.number_documents:
            rows += 1
            free = layout.length - length
    return rows
