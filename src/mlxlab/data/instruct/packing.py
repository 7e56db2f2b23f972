"""Whole conversations as tokens, packed into rows that none of them crosses."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlxlab.data.instruct.encoder import EncodedConversation
from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.packing import PackedRows, RowLayout, TextCursor, next_epoch
from mlxlab.data.text.token_stream import (
    DocumentCursor,
    ShuffledDocuments,
    TokenChunk,
    split_chunks,
)


@dataclass(frozen=True)
class ConversationStream:
    """The conversations of a source, shuffled and tokenised as they are needed; dropped ones are left out."""

    documents: ShuffledDocuments
    encode: Callable[[str], EncodedConversation]  # of the normal form of a conversation

    @property
    def source(self) -> DocumentSource:
        return self.documents.source

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for cursors, ids, documents in self.documents.windows(epoch, start):
            for chunk in split_chunks(documents):
                encoded = [self.encode(document.text) for document in documents[chunk]]
                used = [
                    index for index, conversation in enumerate(encoded) if len(conversation.tokens)
                ]
                if used:
                    yield TokenChunk(
                        [cursors[chunk][index] for index in used],
                        ids[chunk][used],
                        np.array([len(encoded[index].tokens) for index in used], np.int64),
                        np.concatenate([encoded[index].tokens for index in used]),
                        sum(len(document.text.encode()) for document in documents[chunk]),
                        np.concatenate([encoded[index].is_target for index in used]),
                    )


class _Conversation(NamedTuple):
    """A conversation that is not in a row yet."""

    cursor: DocumentCursor
    id: int
    tokens: np.ndarray
    is_target: np.ndarray


class ConversationPacker:
    """Packs whole conversations into rows in the order of the text; a row is padded where the next does not fit.

    A layout that does not number documents gets one conversation per row.
    Every row begins with a conversation, so any row is reached by seeking that one. Implements `RowSource`.

    Args:
        chunks: of conversations that fit into a row.
        cursor: where they begin.
    """

    def __init__(self, chunks: Iterator[TokenChunk], cursor: TextCursor, layout: RowLayout) -> None:
        self.chunks, self.first, self.row, self.layout = chunks, cursor, cursor["row"], layout
        self._pending: deque[_Conversation] = deque()

    @staticmethod
    def num_rows(chunks: Sequence[TokenChunk], layout: RowLayout) -> int:
        lengths = [length for chunk in chunks for length in chunk.lengths.tolist()]
        return (
            count_packed_rows(lengths, layout.length) if layout.number_documents else len(lengths)
        )

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""
        width = self.layout.width
        tokens = np.full((max_rows, width), self.layout.pad_id, np.int32)
        documents, is_target = (
            np.zeros((max_rows, width), np.int64),
            np.zeros((max_rows, width), bool),
        )
        sizes, ids = np.zeros(max_rows, np.int64), np.zeros(max_rows, np.int64)
        count = 0
        while count < max_rows and self.more:
            row = self._next_row()
            lengths = [len(conversation.tokens) for conversation in row]
            sizes[count], ids[count] = sum(lengths), row[0].id
            tokens[count, : sizes[count]] = np.concatenate(
                [conversation.tokens for conversation in row]
            )
            is_target[count, : sizes[count]] = np.concatenate(
                [conversation.is_target for conversation in row]
            )
            documents[count, : sizes[count]] = np.repeat(np.arange(len(row)), lengths)
            count += 1
        numbers = self.row + np.arange(max_rows)
        self.row += count
        return PackedRows(tokens, sizes, documents, ids, numbers, is_target).select(slice(count))

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch."""
        while not self._pending and (chunk := next(self.chunks, None)) is not None:
            self._pending.extend(_conversations(chunk))
        return bool(self._pending)

    @property
    def cursor(self) -> TextCursor:
        """The position of the next conversation; at the end that of the next epoch."""
        if not self.more:
            return next_epoch(self.first)
        return {
            **self.first,
            "row": self.row,
            "rows_drawn": 0,
            "start": self._pending[0].cursor,
            "offset": 0,
        }

    def _next_row(self) -> list[_Conversation]:
        """The next conversations, as many as fit; at least one."""
        row = [self._pending.popleft()]
        if not self.layout.number_documents:  # nothing would keep conversations apart
            return row
        free = self.layout.length - len(row[0].tokens)
        while self.more and len(self._pending[0].tokens) <= free:
            row.append(self._pending.popleft())
            free -= len(row[-1].tokens)
        return row


def count_packed_rows(lengths: Iterable[int], seq_len: int) -> int:
    """Rows of conversations of these lengths, as many in each as fit; at least one."""
    rows = free = 0
    for length in lengths:
        if not rows or length > free:
            rows, free = rows + 1, seq_len
        free -= length
    return rows


def _conversations(chunk: TokenChunk) -> Iterator[_Conversation]:
    assert chunk.is_target is not None
    ends = np.cumsum(chunk.lengths)
    for cursor, number, begin, end in zip(
        chunk.cursors, chunk.ids, ends - chunk.lengths, ends, strict=True
    ):
        yield _Conversation(
            cursor, int(number), chunk.tokens[begin:end], chunk.is_target[begin:end]
        )
