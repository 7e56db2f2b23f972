"""Documents as tokens, one after another in rows of one length.

The order is a function of (seed, epoch), from any row on. A source yields windows of documents, in
another order each epoch, and each window is permuted here. A position is (position of the window,
index of the document in the permuted window, token): seeking reads that one window again, and
nothing before it. The usual shuffle buffer, refilled while it is drawn from, has no such positions.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.data.rng import Stream, counter_hash, permutation
from mlxlab.data.text.documents import Document, DocumentSource, group_documents
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import DataError
from mlxlab.schema.constraints import Count

CHUNK_DOCUMENTS = 256  # tokenized together: enough for the tokenizer's threads
CHUNK_CHARACTERS = 1 << 20  # A chunk of long documents has fewer.


class DocumentCursor(TypedDict):
    """A document of an epoch, as JSON."""

    window: object  # position of its window, in the terms of the source; None is the first window
    documents_before: Count  # documents of the epoch in earlier windows
    document: Count  # index in the shuffled window


EPOCH_START = DocumentCursor(window=None, documents_before=0, document=0)
Window = list[tuple[DocumentCursor, Document]]


class Tokens(NamedTuple):
    """T tokens of a document; none leave it out."""

    ids: np.ndarray  # (T,) int32
    is_target: np.ndarray  # (T,) bool
    full_length: int = 0  # before truncation, where documents are truncated


class TokenizedDocument(NamedTuple):
    """T tokens of a document, at least one."""

    cursor: DocumentCursor
    id: int
    num_bytes: int  # size of the text in UTF-8
    tokens: np.ndarray  # (T,) int32
    is_target: np.ndarray  # (T,) bool


Tokenize = Callable[[Sequence[Document]], list[Tokens]]


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled, and tokenized as they are needed.

    Args:
        limit: maximum number of documents in an epoch, the same ones in each: their windows come in
            the same order.
        chosen: ids of the documents to be read, ascending; None for all.
    """

    source: DocumentSource
    tokenize: Tokenize
    seed: int
    limit: int | None = None
    chosen: np.ndarray | None = None

    def __call__(
        self, epoch: int, start: DocumentCursor
    ) -> Generator[list[TokenizedDocument], None, None]:
        """The documents of the rest of an epoch, in chunks."""
        for window in self.windows(epoch, start):
            for chunk in group_documents(window, CHUNK_DOCUMENTS, CHUNK_CHARACTERS):
                documents = [document for _, document in chunk]
                tokens = self.tokenize(documents)
                encoded = []
                for (cursor, document), (ids, is_target, _) in zip(chunk, tokens, strict=True):
                    if len(ids):
                        size = len(document.text.encode())
                        each = TokenizedDocument(cursor, document.id, size, ids, is_target)
                        encoded.append(each)
                if encoded:
                    yield encoded

    def windows(self, epoch: int, start: DocumentCursor) -> Iterator[Window]:
        """The shuffled windows of the rest of an epoch, from the first document to be read.

        Raises DataError as the source does, and if none of an epoch's documents is chosen.
        """
        before = start["documents_before"]
        window_epoch = epoch if self.limit is None else 0
        for position, window in self.source.windows(self.seed, window_epoch, start["window"]):
            documents = self._select(window, before)
            draws = counter_hash(self.seed, Stream.WINDOW_SHUFFLE, epoch, ids_of(documents))
            shuffled = []
            for index, number in enumerate(np.argsort(draws, kind="stable").tolist()):
                cursor = DocumentCursor(window=position, documents_before=before, document=index)
                shuffled.append((cursor, documents[number]))
            first = start["document"] if position == start["window"] else 0
            yield shuffled[first:]
            before += len(documents)
            if self.limit is not None and before >= self.limit:
                return
        if self.chosen is not None and not before:
            raise DataError(f"{self.source.name}: data.select chose none of these examples")

    def _select(self, documents: list[Document], before: int) -> list[Document]:
        """The chosen documents of a window, of which `before` were in earlier ones, up to the limit."""
        if self.chosen is not None:
            ids = ids_of(documents)
            is_chosen = self.chosen.take(np.searchsorted(self.chosen, ids), mode="clip") == ids
            documents = list(compress(documents, is_chosen))
        if self.limit is not None:
            documents = documents[: self.limit - before]
        return documents

    def repetitions(self, documents: int, num_bytes: int) -> float | None:
        """How many times as much text as a sample of that size an epoch has; None if unknown."""
        estimates = []
        if self.limit is not None:
            estimates.append(self.limit / documents)
        if self.chosen is not None:
            estimates.append(len(self.chosen) / documents)
        if self.source.bytes is not None:
            estimates.append(self.source.bytes / num_bytes)
        return min(estimates, default=None)


def ids_of(documents: Sequence[Document]) -> np.ndarray:
    return np.array([document.id for document in documents], np.int64)


@dataclass(frozen=True)
class TextTokens:
    """Texts as tokens, all of them targets. Implements `Tokenize`.

    Each ends with the end token of the tokenizer.
    """

    tokenizer: Tokenizer

    def __call__(self, documents: Sequence[Document]) -> list[Tokens]:
        end = np.array([self.tokenizer.end_id], np.int32)
        encoded = self.tokenizer.encode_documents([document.text for document in documents])
        return [Tokens(np.append(ids, end), np.ones(len(ids) + 1, bool)) for ids in encoded]


class InMemoryTokens:
    """Keeps the tokens of documents in memory. Implements `Tokenize`."""

    def __init__(self, tokenize: Tokenize) -> None:
        self.tokenize = tokenize
        self.tokens: dict[int, Tokens] = {}

    def __call__(self, documents: Sequence[Document]) -> list[Tokens]:
        new = [document for document in documents if document.id not in self.tokens]
        for document, tokens in zip(new, self.tokenize(new), strict=True):
            self.tokens[document.id] = tokens
        return [self.tokens[document.id] for document in documents]


class TextCursor(TypedDict):
    """The position of the next row, as JSON: its buffer of rows, and the rows drawn from that."""

    epoch: Count
    row: Count  # number in the epoch of the first row of the buffer
    rows_drawn: Count  # rows of the buffer that were drawn
    start: DocumentCursor  # the document of the first token of the buffer
    offset: Count  # index of that token in its document
    fingerprint: str  # identifies the data


def epoch_start(epoch: int, fingerprint: str = "") -> TextCursor:
    return TextCursor(
        epoch=epoch, row=0, rows_drawn=0, start=EPOCH_START, offset=0, fingerprint=fingerprint
    )


class Row(NamedTuple):
    """S tokens of the text."""

    tokens: np.ndarray  # (S,) int32
    is_target: np.ndarray  # (S,) bool
    documents: np.ndarray  # (S,) int64: consecutive numbers of the documents of the tokens
    id: int  # identifies the document of the first token
    number: int  # counts the rows of the epoch
    after: TextCursor  # the position of the next row; at the end that of the next epoch


NOTHING = np.zeros(0, bool)
EMPTY_ROW = Row(np.zeros(0, np.int32), NOTHING, np.zeros(0, int), -1, 0, epoch_start(0))

Take = Callable[[int], list[Row]]  # the next rows, as many as asked for while the epoch has some


@dataclass(frozen=True)
class RowLayout:
    """How tokens become rows.

    Row n is tokens n * stride to n * stride + width, the last of which may only be a target. A row
    of whole documents has as many as fit; one of them if they are not numbered.
    """

    length: int  # positions of a row
    stride: int  # tokens between the starts of two rows; below `length` rows overlap
    target_shift: int  # 1 where a row has one token more, the target of its last position; else 0
    pad_id: int
    number_documents: bool = False  # tell which tokens belong to the same document
    whole_documents: bool = False  # `stride` is not used

    @property
    def width(self) -> int:
        return self.length + self.target_shift

    def without_overlap(self) -> "RowLayout":
        """The layout of evaluation rows, which share no target."""
        return replace(self, stride=self.length)

    def count_rows(self, tokens: int) -> int:
        """Rows that `tokens` tokens make: the full ones, and a short one with a target of its own."""
        if tokens <= self.target_shift:
            return 0
        full = max(0, (tokens - self.width) // self.stride + 1)
        overlap = self.target_shift
        if full:
            overlap = max(self.width - self.stride, overlap)
        has_short_row = tokens - full * self.stride > overlap
        return full + has_short_row

    def split(self, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The index of the first token of each row, and its size.

        Args:
            ends: (D,) of the documents, counted from the first token.
        """
        total = int(ends.max(initial=0))
        if self.whole_documents:
            begins = self._pack_whole(ends.tolist())
            return begins, np.diff(begins, append=total)
        begins = np.arange(self.count_rows(total)) * self.stride
        return begins, np.minimum(total - begins, self.width)

    def _pack_whole(self, ends: list[int]) -> np.ndarray:
        begins = []
        begin = 0
        row_end = 0
        for end in ends:
            if end > row_end or not self.number_documents:
                begins.append(begin)
                row_end = begin + self.length
            begin = end
        return np.array(begins, np.int64)


def pack(
    chunks: Iterable[list[TokenizedDocument]], cursor: TextCursor, layout: RowLayout
) -> Iterator[Row]:
    """The rows of the rest of an epoch.

    Args:
        chunks: of the documents from the one on that `cursor` names.
    """
    held = []
    rows = []
    for chunk in chunks:
        held += chunk
        rows = split_rows(held, cursor, layout)
        # Rows before the last one do not depend on tokens that are not read yet.
        yield from rows[:-1]
        if len(rows) > 1:
            cursor = rows[-2].after
            held = held[rows[-1].documents[0] :]
    yield from rows[-1:]


def split_rows(
    documents: Sequence[TokenizedDocument], start: TextCursor, layout: RowLayout
) -> list[Row]:
    """The rows of documents, the first of which has the token at `start`, as if none followed."""
    lengths = np.array([len(document.tokens) for document in documents])
    ends = np.cumsum(lengths)
    begins, sizes = layout.split(ends - start["offset"])
    begins += start["offset"]
    document_of = np.repeat(np.arange(len(documents)), lengths)
    firsts = document_of[begins]
    offsets = begins - (ends - lengths)[firsts]

    tokens = np.concatenate([document.tokens for document in documents])
    is_target = np.concatenate([document.is_target for document in documents])
    rows = []
    # The last row comes first, as each has the position of the next one.
    after = epoch_start(start["epoch"] + 1, start["fingerprint"])
    for index in reversed(range(len(begins))):
        part = slice(begins[index], begins[index] + sizes[index])
        first = documents[firsts[index]]
        number = start["row"] + index
        rows.append(Row(tokens[part], is_target[part], document_of[part], first.id, number, after))
        offset = int(offsets[index])
        after = {
            **start,
            "row": number,
            "rows_drawn": 0,
            "start": first.cursor,
            "offset": offset,
        }
    return rows[::-1]


def shuffle_rows(rows: Iterator[Row], cursor: TextCursor, size: int, seed: int) -> Iterator[Row]:
    """The rows in buffers of `size`, permuted by (seed, epoch, first row).

    Neighbouring rows of long documents are alike. A position is that of a buffer in the text and
    the number of rows drawn from it: seeking makes that one buffer again.

    Args:
        cursor: its first row is that of a buffer.
    """
    while buffer := list(islice(rows, size)):
        numbers = (Stream.ROW_SHUFFLE, cursor["epoch"], cursor["row"])
        order = permutation(len(buffer), seed, *numbers)
        following = buffer[-1].after
        for drawn in range(cursor["rows_drawn"] + 1, len(buffer) + 1):
            after: TextCursor = {**cursor, "rows_drawn": drawn}
            if drawn == len(buffer):
                after = following
            yield buffer[order[drawn - 1]]._replace(after=after)
        cursor = following
